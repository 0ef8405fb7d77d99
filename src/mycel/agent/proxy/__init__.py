"""The agent's side of the node's Envoy: what it is to hold (delta ADS on a unix socket), what it said of it, and which
control group its sockets are in.
"""
