"""The program on every node: it computes the node's plan from the API server's objects and brings the datapath there.

It wires pods (CNI), publishes them, serves flows and answers `cilium` commands. `assembly` makes its parts,
`main.run_agent` shows the order in which they start and stop.
"""
