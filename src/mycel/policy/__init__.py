"""Policy: from rules people write to rows the kernel enforces, and to explanations. Pure.

The engine is not here yet: endpoints carry no enforce flags, so everything is allowed, and no rows exist.
"""
