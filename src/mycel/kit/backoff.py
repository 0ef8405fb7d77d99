"""How long to wait after failures: doubling from a first pause up to a longest one."""

from __future__ import annotations

import random


def backoff_s(
    failures: int,
    *,
    first_s: float = 0.1,
    longest_s: float = 30.0,
    jitter: float = 0.0,
    chance: random.Random | None = None,
) -> float:
    """Seconds to wait after the nth failure in a row (from 1); 0 before the first.

    With `jitter` 0.2 the pause is up to a fifth shorter, by chance, so that many clients do not come back
    at once.
    """
    if failures <= 0:
        return 0.0
    pause_s = min(longest_s, first_s * 2 ** min(failures - 1, 63))
    source = chance if chance is not None else _chance
    return pause_s * (1 - jitter * source.random()) if jitter else pause_s


_chance = random.Random()  # noqa: S311 - spreads load, keeps no secret
