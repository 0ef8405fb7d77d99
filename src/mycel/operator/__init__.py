"""The mesh's one-per-cluster program: definitions of our kinds, and the collection of what nobody uses any more.

What to collect is decided by pure functions (`garbage`); `main` watches, asks them and deletes. Several may
run: a Lease elects the one that works.
"""
