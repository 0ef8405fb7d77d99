"""What can go wrong between us and the kernel, each error naming the object and the next step."""

from __future__ import annotations

import errno
import os


class DatapathError(Exception):
    """Anything the datapath room raises on purpose."""


class KernelRefused(DatapathError):
    """A bpf(2) call failed; `errno` tells which way."""

    def __init__(self, what: str, number: int) -> None:
        name = errno.errorcode.get(number, str(number))
        super().__init__(f"{what}: {os.strerror(number)} ({name})")
        self.errno = number


class VerifierRejected(DatapathError):
    """The kernel's verifier refused a program. `log` holds all it said, the message the last useful lines."""

    def __init__(self, program: str, number: int, log: str) -> None:
        tail = "\n  ".join(last_useful_lines(log)) or "no log"
        super().__init__(f"program {program} was refused ({os.strerror(number)}):\n  {tail}")
        self.program = program
        self.log = log


class MapIncompatible(DatapathError):
    """A map in the kernel is not laid out as this version needs it."""

    def __init__(self, name: str, *, kernel: str, layout: str) -> None:
        super().__init__(
            f"map {name} in the kernel has {kernel}, this version needs {layout}: "
            f"rebuild the map, or run the version that made it"
        )
        self.name = name


class NotSupported(DatapathError):
    """The running kernel lacks something."""

    def __init__(self, feature: str, *, needs: str) -> None:
        super().__init__(f"this kernel has no {feature}: it needs {needs}")
        self.feature = feature
        self.needs = needs


class RingBusy(DatapathError):
    """Another process reads the events of this node."""


def last_useful_lines(log: str, count: int = 12) -> list[str]:
    """The end of a verifier log without its statistics, which is where the reason stands."""
    lines = [line.rstrip() for line in log.replace("\0", "").splitlines()]
    noise = ("processed ", "verification time", "stack depth", "-- END", "libbpf: ")
    return [line for line in lines if line and not line.startswith(noise)][-count:]
