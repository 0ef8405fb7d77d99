"""The only room that speaks xDS: the node's Envoy, fed from the same plan as the kernel's maps.

The protocol's rules have no I/O: `resources` (what a client is to hold) and `delta` (one stream); `ads` and `server`
move the bytes. docs/l7.md is the design.
"""
