"""Everything one node's datapath should hold, computed from what is known. Pure and deterministic.

`rows` makes the map rows, `node_plan` puts them together under one version; `datapath` brings the kernel
there.
"""
