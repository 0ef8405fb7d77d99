"""Statuses that every node's agent has a part of: how fast they are written, and who judges what is the same on all."""

from __future__ import annotations

from mycel.agent.watches import Watches

PATIENCE_S = 0.7
"""So long the other nodes wait for the judge."""
REST_S = 0.2
"""Between two statuses of one worker: what is enforced matters more than that it is told."""


def is_first(watches: Watches, node: str) -> bool:
    """Whether this is the first, by name, of the nodes whose agents have published themselves."""
    names = [key.name for key in watches.published_nodes.store]
    return not names or min(names) == node
