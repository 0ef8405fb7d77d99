"""The only room that speaks xDS: the node's Envoy, fed from the same plan as the kernel's maps.

So far the protocol's rules without I/O: `resources` (what a client is to hold) and `delta` (one stream).
docs/l7.md is the design.
"""
