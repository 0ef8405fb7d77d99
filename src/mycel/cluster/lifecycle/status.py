"""What `mycel cluster list` shows: the record held against the processes that run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mycel.cluster.lifecycle import processes, record
from mycel.cluster.lifecycle.errors import LifecycleError
from mycel.cluster.lifecycle.paths import ClusterPaths


@dataclass(frozen=True, slots=True)
class Summary:
    """One cluster at a glance.

    `state` is running, degraded (something of it is down), stopped, incomplete (its creation goes on or was cut off) or
    broken (its record cannot be read).
    """

    name: str
    state: str
    nodes: int
    nodes_up: int
    network: str
    server: str
    context: str

    def row(self) -> list[str]:
        """Cells of the table."""
        return [
            self.name,
            self.state,
            f"{self.nodes_up}/{self.nodes}",
            self.network,
            self.server,
            self.context,
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def summaries() -> list[Summary]:
    """All clusters below the configured state folder."""
    return [summary(name) for name in record.names()]


def summary(name: str) -> Summary:
    """One cluster."""
    paths = ClusterPaths.of(name)
    try:
        cluster = record.read(paths)
    except LifecycleError:
        cluster = None
    if cluster is None:
        return Summary(name, "broken", 0, 0, "", "", f"mycel-{name}")
    up = sum(_alive(paths, node.name) for node in cluster.nodes)
    core = [_alive(paths, part) for part in (processes.SUPERVISOR, processes.API_SERVER)]
    if not cluster.ready:
        state = "incomplete"
    elif all(core) and up == len(cluster.nodes):
        state = "running"
    else:
        state = "degraded" if up or any(core) else "stopped"
    return Summary(name, state, len(cluster.nodes), up, cluster.network, cluster.servers[0], cluster.context)


def _alive(paths: ClusterPaths, name: str) -> bool:
    known = processes.read(paths, name)
    return known is not None and known.alive
