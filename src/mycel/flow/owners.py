"""Who has an address, and who had it before: events are told after the fact, and addresses change hands meanwhile.

Times are nanoseconds of CLOCK_MONOTONIC, as in events.
"""

from collections import deque
from typing import NamedTuple

from mycel.flow.records import Endpoint, Owner
from mycel.model.address import Address

REMEMBERED = 16_384
"""Former owners: at a hundred pods a second those of the last minutes; events are late by milliseconds."""
_IDENTITIES = 8


class _Tenure(NamedTuple):
    """One pod's time at an address; nobody's when there is no record."""

    since_ns: int
    records: dict[int, Endpoint]  # by identity, for a pod that was relabelled; the newest is last

    def is_of(self, endpoint: Endpoint) -> bool:
        """Whether this is the same pod."""
        return any(_pod(each) == _pod(endpoint) for each in self.records.values())


class Owners:
    """Told of changes in their order; `at` is what flows ask."""

    def __init__(self, *, remembered: int = REMEMBERED) -> None:
        self._tenures: dict[Address, list[_Tenure]] = {}  # oldest first
        self._remembered = remembered
        self._over: deque[Address] = deque()  # where a tenure is over, in the order of their ends

    def take(self, address: Address, endpoint: Endpoint, *, at_ns: int) -> None:
        """The address is this pod's from then on; a pod that has it already has other labels now."""
        tenures = self._tenures.get(address)
        if not tenures or not tenures[-1].is_of(endpoint):
            self._begin(address, _Tenure(at_ns, {endpoint.identity: endpoint}))
            return
        records = tenures[-1].records
        records.pop(endpoint.identity, None)
        records[endpoint.identity] = endpoint
        if len(records) > _IDENTITIES:
            del records[next(iter(records))]

    def leave(self, address: Address, endpoint: Endpoint, *, at_ns: int) -> None:
        """The address is nobody's from then on, unless it is another pod's already."""
        tenures = self._tenures.get(address)
        if tenures and tenures[-1].is_of(endpoint):
            self._begin(address, _Tenure(at_ns, {}))

    @property
    def size(self) -> int:
        """Addresses of which something is known."""
        return len(self._tenures)

    def at(self, address: Address, identity: int, at_ns: int) -> Owner:
        """Who had the address then, as they were called under an identity if they ever had it."""
        for tenure in reversed(self._tenures.get(address, ())):
            if tenure.since_ns <= at_ns:
                records = tenure.records
                newest = next(reversed(records.values()), None)
                return Owner((records.get(identity) if identity else None) or newest, tenure.since_ns)
        return Owner(None, 0)

    def _begin(self, address: Address, tenure: _Tenure) -> None:
        tenures = self._tenures.setdefault(address, [])
        if tenures:
            self._over.append(address)
        tenures.append(tenure)
        if len(self._over) > self._remembered:
            self._forget(self._over.popleft())

    def _forget(self, address: Address) -> None:
        tenures = self._tenures[address]
        del tenures[0]
        if len(tenures) == 1 and not tenures[0].records:
            del self._tenures[address]  # nobody is there, nobody is remembered: as if never heard of


def _pod(endpoint: Endpoint) -> tuple[str, str, int]:
    return endpoint.namespace, endpoint.pod_name, endpoint.endpoint_id
