"""The node program: runs the pods that the API server binds to its node, as OCI containers in the node's namespaces.

Pure rules (`env`, `bundle`, `decide`, `status`, `dns`, `quantity`) are apart from what touches the kernel
(`sandbox`, `runtime`, `cni`, `volumes`) and from what speaks to others (`server`, `heartbeat`, `events`). It knows
nothing of the mesh: CNI, host paths, bpffs and the v2 control group are all that a network gets.
"""
