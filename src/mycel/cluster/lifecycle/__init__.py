"""Making and removing a whole embedded cluster: the record of what exists, addresses, namespaces, processes.

Runs in the machine's own namespaces, as root. It starts the API server and the node programs and knows nothing of pods.
"""
