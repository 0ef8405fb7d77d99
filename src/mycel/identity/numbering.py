"""Which number a label set has, or gets.

Numbers are CiliumIdentity objects named by the number; creating one is the API server's compare-and-swap.
Every agent tries the same numbers in the same order for a label set (from a digest of it), so two agents that
need the same new identity at once collide on one name instead of making two. Where two equal objects exist
nonetheless, all adopt the lowest. A number is never given to another label set while an object of it exists;
the operator removes objects only after a grace in which nobody used them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from mycel.model.workload import Identity, IdentityId

FIRST, LAST = 256, 65535
_COUNT = LAST - FIRST + 1


class NumbersExhausted(Exception):
    """Every cluster identity is taken: fewer distinct label sets are needed."""


def index_by_labels(identities: Iterable[Identity]) -> dict[tuple[str, ...], IdentityId]:
    """The number of each label set: the lowest where several objects are equal."""
    found: dict[tuple[str, ...], IdentityId] = {}
    for identity in identities:
        known = found.get(identity.labels)
        if known is None or identity.id < known:
            found[identity.labels] = identity.id
    return found


def candidates(labels: tuple[str, ...], taken: Mapping[IdentityId, object]) -> Iterator[IdentityId]:
    """Free numbers in the order to try them. Raises NumbersExhausted at the end."""
    digest = hashlib.sha256("\0".join(labels).encode()).digest()
    start = int.from_bytes(digest[:4], "big") % _COUNT
    for offset in range(_COUNT):
        number = IdentityId(FIRST + (start + offset) % _COUNT)
        if number not in taken:
            yield number
    raise NumbersExhausted(f"all {_COUNT} cluster identities are taken")


def unused(identities: Iterable[Identity], referenced: Iterable[int]) -> set[IdentityId]:
    """Cluster identities no endpoint has."""
    used = set(referenced)
    return {each.id for each in identities if each.id not in used and FIRST <= each.id <= LAST}
