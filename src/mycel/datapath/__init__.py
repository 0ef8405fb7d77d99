"""The only room with bpf(2) and netlink: programs, maps, links, events and the node's devices.

Desired rows come from the plan as abi keys and values; realized rows are read back from the kernel, so an
agent that starts adopts what a previous one left pinned. Nothing here decides policy, knows Kubernetes, or
formats output.
"""
