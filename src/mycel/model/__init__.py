"""The nouns of the mesh: addresses, workloads, nodes, services, identities. Frozen values without behaviour.

They hold the fields the mesh uses and nothing else, so equality means "nothing changed". Where they come from
(JSON, maps, files) is other rooms' business.
"""
