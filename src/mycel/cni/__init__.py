"""The CNI plugin a container runtime runs for each pod, and how an agent puts it on its node.

`plugin` is a script on its own: it runs with the node's Python, imports nothing of this package and little of
the standard library, as it is started for every pod. All real work is the agent's.
"""
