"""Validation at apply time: what is said of objects before they are stored."""
