"""Nobody is called by the name of who had the address before or after."""

import random

import pytest

from mycel.flow.enrich import Enricher, Records
from mycel.flow.owners import Owners
from mycel.flow.records import Endpoint, Owner
from mycel.model.address import Address
from tests.unit.flow.samples import CLIENT, ECHO, WORLD, Names, event, events

A = Endpoint(300, 1, "shop", "a")
B = Endpoint(300, 2, "shop", "b")
HOUR = 3_600_000_000_000


def handed_over() -> Owners:
    """The client's address: a from 10 to 20, b from 30."""
    owners = Owners()
    owners.take(CLIENT, A, at_ns=10)
    owners.leave(CLIENT, A, at_ns=20)
    owners.take(CLIENT, B, at_ns=30)
    return owners


@pytest.mark.parametrize(("at_ns", "owner"), [(9, None), (10, A), (19, A), (20, None), (29, None), (30, B), (HOUR, B)])
def test_who_had_an_address_at_a_moment(at_ns: int, owner: Endpoint | None) -> None:
    """Equal identities or not."""
    assert handed_over().at(CLIENT, 300, at_ns).endpoint == owner
    assert handed_over().at(ECHO, 300, at_ns) == Owner(None, 0)


def test_news_in_the_other_order() -> None:
    """A new pod is told before the old one's end is: the end is the old one's."""
    owners = Owners()
    owners.take(CLIENT, A, at_ns=10)
    owners.take(CLIENT, B, at_ns=20)
    owners.leave(CLIENT, A, at_ns=30)
    assert [owners.at(CLIENT, 0, at_ns).endpoint for at_ns in (19, 20, 31)] == [A, B, B]


def test_a_relabelled_pod_keeps_its_name() -> None:
    """Packets judged under its identity of before are its own; the newest record is meant where none is said."""
    owners = Owners()
    unknown, first, second = (A._replace(identity=number) for number in (0, 300, 301))
    for at_ns, record in enumerate((unknown, first, second)):
        owners.take(CLIENT, record, at_ns=at_ns)
    assert [owners.at(CLIENT, number, HOUR) for number in (300, 301, 0, 999)] == [
        Owner(record, 0) for record in (first, second, second, second)
    ]
    for identity in range(400, 500):  # a pod that is relabelled without end takes no memory without end
        owners.take(CLIENT, A._replace(identity=identity), at_ns=3)
    assert owners.at(CLIENT, 400, HOUR).endpoint == A._replace(identity=499)
    assert owners.at(CLIENT, 499, HOUR).endpoint == A._replace(identity=499)


def test_only_so_many_are_remembered() -> None:
    """Who is forgotten is nobody; who is there stays, and addresses nobody has leave nothing behind."""
    owners = Owners(remembered=50)
    generator, addresses = random.Random(4), [Address(bytes(15) + bytes([number])) for number in range(20)]
    history: dict[Address, list[tuple[int, Endpoint | None]]] = {each: [(0, None)] for each in addresses}
    for at_ns in range(1, 5_000):
        address = generator.choice(addresses)
        current = history[address][-1][1]
        if current is None:
            taken = Endpoint(300, at_ns, "shop", f"pod-{at_ns}")
            owners.take(address, taken, at_ns=at_ns)
            history[address].append((at_ns, taken))
        else:
            owners.leave(address, current, at_ns=at_ns)
            history[address].append((at_ns, None))
        for asked in addresses:
            when = generator.randrange(max(0, at_ns - 100), at_ns + 1)
            was = next(endpoint for since, endpoint in reversed(history[asked]) if since <= when)
            said = owners.at(asked, 300, when).endpoint
            assert said == was or (said is None and when < at_ns - 25)
    for address in addresses:
        if (current := history[address][-1][1]) is not None:
            owners.leave(address, current, at_ns=5_000)
    for at_ns in range(6_000, 7_000):
        owners.take(WORLD, A, at_ns=at_ns)
        owners.leave(WORLD, A, at_ns=at_ns)
    assert owners.size <= 52


class Handed(Names):
    """A directory with a history."""

    def __init__(self) -> None:
        super().__init__()
        self.pods = handed_over()

    def owner(self, address: Address, identity: int, at_ns: int) -> Owner:
        return self.pods.at(address, identity, at_ns) if address == CLIENT else super().owner(address, identity, at_ns)


def test_late_events_are_named_after_their_time() -> None:
    """In one batch, and when the newer answer is remembered already."""
    names, records = Handed(), Records()
    enricher = Enricher(names, records)
    for _ in range(2):
        batch = events(*(event(time_ns=at_ns, source_identity=300) for at_ns in (35, 15, 25, 5, 30)))
        rows = enricher.enrich(batch, wall_offset_ns=0)
        shown = [records.endpoints[int(number)] for number in rows["source_record"]]
        assert [each and each.pod_name for each in shown] == ["", "a", "", "b", "b"]
        assert [each and each.identity for each in shown] == [300] * 5
