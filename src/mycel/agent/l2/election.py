"""What to do about one lease now. Pure."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from mycel.k8s.lease import Lease


class Times(NamedTuple):
    """Seconds: after which a lease that was not renewed is free; between renewals; until a failed try is repeated."""

    lease_s: float
    renew_s: float
    retry_s: float


USUAL_TIMES = Times(15.0, 5.0, 2.0)


class Act(Enum):
    """What to do."""

    WAIT = auto()
    TAKE = auto()  # or renew: the same write
    DROP = auto()  # delete it


class Step(NamedTuple):
    """What to do, and when to look again: None when only a change can matter."""

    act: Act
    again_s: float | None = None


def step(
    lease: Lease | None, me: str, *, wanted: bool, orphan: bool, preferred: bool, age_s: float, times: Times
) -> Step:
    """About a lease that has been as it is for `age_s` seconds (one that is not there: since it was first wanted).

    `wanted`: this node may announce; `orphan`: there is no service to it any more, for anyone; `preferred`: this node
    takes it first while nobody has it.
    """
    holder = lease.holder if lease else ""
    if not wanted:
        if lease is not None and holder == me:
            return Step(Act.DROP)
        if lease is not None and orphan:  # its holder went before it could tidy up
            return Step(Act.DROP) if age_s >= times.lease_s else Step(Act.WAIT, times.lease_s - age_s)
        return Step(Act.WAIT)
    if holder == me:
        return Step(Act.TAKE, times.renew_s) if age_s >= times.renew_s else Step(Act.WAIT, times.renew_s - age_s)
    wait_s = times.lease_s if holder else 0.0 if preferred else times.retry_s
    return Step(Act.TAKE, times.retry_s) if age_s >= wait_s else Step(Act.WAIT, wait_s - age_s)
