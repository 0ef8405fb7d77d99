"""The embedded cluster's Kubernetes API server.

Turns HTTPS requests into judged, defaulted objects in the store, and
the store's changes into watch streams.
What a kind is made of is data (`schema/tables`, `kinds.py`); the handlers know no kind by name. It runs no
pods: exec, attach, logs and port-forward are tunnelled to the nodes.
"""
