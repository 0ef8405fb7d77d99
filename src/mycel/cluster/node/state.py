"""What the node knows of a pod's containers, on disk in `state.json`: enough to go on after a restart of the node
program.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class Ended(msgspec.Struct, frozen=True):
    """One run of a container that is over. Times are RFC 3339."""

    container: str
    code: int
    reason: str
    started: str
    finished: str
    message: str = ""


class ContainerState(msgspec.Struct):
    """One container of a pod, over all its runs."""

    name: str
    container: str = ""  # id of the present or last run; empty before the first
    restarts: int = 0
    started: str = ""  # the present run began; empty when none runs
    ended: Ended | None = None  # how the last run ended, while none runs
    last: Ended | None = None  # the run before
    waiting: str = "ContainerCreating"
    message: str = ""
    image_id: str = ""
    failures: int = 0  # in a row, for the restart backoff
    not_before: float = 0.0  # seconds since the epoch: no start before
    passed_startup: bool = False
    ready: bool = False

    @property
    def running(self) -> bool:
        return bool(self.started)


class PodState(msgspec.Struct):
    """One pod as it stands on this node."""

    namespace: str
    name: str
    uid: str
    sandbox: str = ""  # id of the sandbox; empty when there is none
    addresses: tuple[str, ...] = ()
    start_time: str = ""
    initialized: bool = False
    containers: dict[str, ContainerState] = {}
    reason: str = ""  # of the pod as a whole: Evicted, DeadlineExceeded, …
    message: str = ""
    failed: bool = False

    def container(self, name: str) -> ContainerState:
        """The container's state, made when first asked for."""
        return self.containers.setdefault(name, ContainerState(name))


def save(path: Path, state: PodState) -> None:
    """Replace the file."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    beside = path.with_suffix(".new")
    beside.write_bytes(msgspec.json.encode(state))
    beside.rename(path)


def load(path: Path) -> PodState | None:
    """What was saved; None when nothing was, or nothing that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=PodState)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
