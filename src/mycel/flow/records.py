"""The names a flow carries, and who is asked for them.

`Directory` is all the flow room wants to know of the rest of the mesh: an agent implements it over its
stores, a test over a dict. What it answers is remembered until its `version` changes, so that names are
looked up once per address and not once per packet.
"""

from collections.abc import Mapping
from typing import Generic, NamedTuple, NewType, Protocol, TypeVar

from mycel.model.address import Address

RecordNumber = NewType("RecordNumber", int)
"""Place of a record in an `Interner`; 0 is "nothing"."""

NOW_NS = 2**64 - 1
"""A moment no owner's time begins after: who has it now."""

T = TypeVar("T")


class Workload(NamedTuple):
    """What made a pod: `Deployment` `web`."""

    kind: str
    name: str


class Endpoint(NamedTuple):
    """One end of a flow as known when the event arrived. Everything may be empty but the identity."""

    identity: int = 0
    endpoint_id: int = 0  # on this node; 0: elsewhere
    namespace: str = ""
    pod_name: str = ""
    labels: tuple[str, ...] = ()  # `source:key=value`, sorted
    workloads: tuple[Workload, ...] = ()
    cluster_name: str = ""


class ServiceName(NamedTuple):
    """A Kubernetes Service."""

    namespace: str
    name: str


class PolicyName(NamedTuple):
    """A rule that made a verdict: its object, and the field in it."""

    kind: str
    namespace: str
    name: str
    rule: str  # spec.ingress[0]
    revision: int = 0  # from which on the object is enforced


class Request(NamedTuple):
    """What a proxy saw, for who knows the rules it went by."""

    listener: int
    rule: str  # L7Record.rule
    query: str  # of DNS
    endpoint_id: int  # whose rules were asked
    peer: int  # the other end's identity
    protocol: int
    port: int  # the server's
    ingress: bool
    denied: bool


class Owner(NamedTuple):
    """Who had an address; None: nobody that is known."""

    endpoint: Endpoint | None
    since_ns: int  # CLOCK_MONOTONIC; the one who has it now has it since


class Directory(Protocol):
    """Names of addresses, identities and interfaces on this node."""

    @property
    def version(self) -> int:
        """A number that differs whenever any answer below may differ."""
        ...

    def owner(self, address: Address, identity: int, at_ns: int) -> Owner:
        """The pod, node or host that had this address at a moment of CLOCK_MONOTONIC.

        `identity` chooses among the records of one pod that was relabelled; 0 takes the newest.
        """
        ...

    def labels(self, identity: int) -> tuple[str, ...]:
        """Labels of an identity, `reserved:world` for 2; empty when it is not known."""
        ...

    def identity(self, address: Address) -> int:
        """What the kernel takes an address for that nobody has: of its DNS names, of a policy's prefix, or world."""
        ...

    def services(self, address: Address) -> Mapping[tuple[int, int], ServiceName]:
        """Frontends on this address: (port, IP protocol number) → Service; empty when there is none."""
        ...

    def names(self, address: Address) -> tuple[str, ...]:
        """DNS names that pods of this node were told for this address, without the trailing dot."""
        ...

    def policies(self, rule: int, endpoint_id: int, *, ingress: bool, denied: bool) -> tuple[PolicyName, ...]:
        """What a row's rule number stands for at an endpoint of this node.

        Number 0 of a denial is default deny: then the policies that switched it on.
        """
        ...

    def request_policies(self, request: Request) -> tuple[PolicyName, ...]:
        """The rules that let a request through; of a denied one those that were asked."""
        ...

    def interface(self, ifindex: int) -> str:
        """Name of the node's interface, empty when it is gone."""
        ...


class Interner(Generic[T]):
    """Equal values share a number; 0 stands for None. Numbers of forgotten values are given again."""

    def __init__(self) -> None:
        self._values: list[T | None] = [None]
        self._numbers: dict[T, RecordNumber] = {}
        self._free: list[RecordNumber] = []

    def __len__(self) -> int:
        return len(self._numbers) + 1

    def __getitem__(self, number: int) -> T | None:
        return self._values[number]

    def number(self, value: T | None) -> RecordNumber:
        """The number of a value, given at first sight."""
        if value is None:
            return RecordNumber(0)
        number = self._numbers.get(value)
        if number is None:
            if self._free:
                number = self._free.pop()
                self._values[number] = value
            else:
                number = RecordNumber(len(self._values))
                self._values.append(value)
            self._numbers[value] = number
        return number

    def keep(self, used: set[int]) -> None:
        """Forget every value whose number is not in `used`; the numbers of the others stay.

        Whoever remembers a number that is not used must forget it, too: it is another value's from now on.
        """
        for value, number in [each for each in self._numbers.items() if each[1] not in used]:
            self._values[number] = None
            del self._numbers[value]
            self._free.append(number)
