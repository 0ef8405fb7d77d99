"""The `mycel` command: what a person types. One module per verb, loaded only when that verb runs.

Verbs read and write Kubernetes objects through `mycel.k8s` and render `deploy/chart`; what only a node knows
they ask the agent there, by exec into its pod. Nothing here decides anything about traffic.
"""
