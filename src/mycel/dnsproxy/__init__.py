"""The node's DNS proxy: lets through the questions policies allow, and learns which addresses names have.

An answer leaves only when its addresses are in the kernel's map, so that a client's first packet finds its rule. It
runs as a process of its own and goes on by its last rules while the agent is away.
"""
