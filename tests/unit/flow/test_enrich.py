"""Names are put on events when they arrive."""

import numpy as np
import pytest

from mycel import abi
from mycel.flow.enrich import Enricher, Records
from mycel.flow.l7 import End, Half, Http, L7Record, L7Verdict
from mycel.flow.records import Endpoint, Interner, ServiceName
from mycel.model.address import format_address
from tests.unit.flow.samples import (
    CLIENT,
    CLIENT_ENDPOINT,
    ECHO,
    FRONTEND,
    NAMED,
    WALL_NS,
    WORLD,
    Names,
    enrich,
    event,
    events,
)


def test_rows_come_in_the_order_of_time() -> None:
    """Rings of several CPUs are one sequence, with wall time."""
    rows, _ = enrich(event(time_ns=30), event(time_ns=10), event(time_ns=20))
    assert rows["event"]["time_ns"].tolist() == [10, 20, 30]
    assert rows["wall_ns"].tolist() == [WALL_NS + 10, WALL_NS + 20, WALL_NS + 30]


def test_directory_is_asked_once_per_address() -> None:
    """A thousand packets of two pods are two questions, in this batch and the next."""
    names = Names()
    enricher = Enricher(names, Records())
    for _ in range(2):
        enricher.enrich(events(*(event(source_port=port) for port in range(1, 1000))), wall_offset_ns=0)
    assert sorted([CLIENT, ECHO]) == sorted(names.asked)


def test_changed_directory_is_asked_again() -> None:
    """A pod that gets an address is named from then on; earlier rows keep their names."""
    names, records = Names(), Records()
    enricher = Enricher(names, records)
    before = enricher.enrich(events(event(source=WORLD, source_identity=2)), wall_offset_ns=0)
    names.endpoints[WORLD] = Endpoint(77, namespace="new", pod_name="pod")
    names.version += 1
    after = enricher.enrich(events(event(source=WORLD, source_identity=77)), wall_offset_ns=0)
    assert Endpoint(2, labels=("reserved:world",)) == records.endpoints[int(before["source_record"][0])]
    assert names.endpoints[WORLD] == records.endpoints[int(after["source_record"][0])]


def test_a_packet_of_another_identity_is_not_the_pods() -> None:
    """What the kernel enforced is shown, and no name: another pod's packet, or one whose news are late."""
    rows, records = enrich(event(source_identity=999))
    shown = records.endpoints[int(rows["source_record"][0])]
    labels = ("k8s:app=other", "k8s:io.kubernetes.pod.namespace=elsewhere")
    assert Endpoint(999, namespace="elsewhere", labels=labels, cluster_name="default") == shown


def test_packet_without_identity_gets_the_directorys() -> None:
    """Hooks that do not know an identity leave it 0."""
    rows, records = enrich(event(source_identity=0))
    assert records.endpoints[int(rows["source_record"][0])] == CLIENT_ENDPOINT


def test_services_of_both_directions() -> None:
    """A frontend as destination, and the frontend that was dialled for the side that answers."""
    dialled = {"original": FRONTEND, "original_port": 80}
    rows, records = enrich(
        event(time_ns=1, destination=FRONTEND, destination_port=80),
        event(time_ns=2, destination=FRONTEND, destination_port=81),
        event(time_ns=3, **dialled),
        event(time_ns=4, source=ECHO, destination=CLIENT, is_reply=1, **dialled),
    )
    echo = ServiceName("shop", "echo")
    assert [echo, None, echo, None] == [records.services[number] for number in rows["destination_service"]]
    assert [None, None, None, echo] == [records.services[number] for number in rows["source_service"]]


def test_dns_names_and_interfaces() -> None:
    """Outside addresses carry the names they were resolved from; interfaces their names."""
    rows, records = enrich(event(destination=WORLD, ifindex=3))
    assert records.names[int(rows["destination_names"][0])] == ("one.example",)
    assert records.interfaces[int(rows["interface"][0])] == (3, "lxc3")


def test_an_outside_address_is_the_same_at_both_layers() -> None:
    """What a proxy saw has no identity of its own: the address is taken for what the kernel takes it for."""
    records = Records()
    enricher = Enricher(Names(), records)
    packets = enricher.enrich(events(event(destination=WORLD, destination_identity=NAMED)), wall_offset_ns=0)
    ends = End(format_address(CLIENT), 40_000), End(format_address(WORLD), 80)
    http = Http(method="GET", url="http://one.example/", protocol="HTTP/1.1")
    messages = [
        L7Record(1, half, L7Verdict.FORWARDED, *ends, "TCP", 10007, http=http) for half in (Half.REQUEST, Half.RESPONSE)
    ]
    (requests,) = enricher.enrich_l7([messages], pytest.fail, wall_offset_ns=0)
    for field in ("record", "names"):
        server = packets[f"destination_{field}"].tolist()
        assert server == [requests[f"destination_{field}"][0]] == [requests[f"source_{field}"][1]]
    assert requests["event"]["destination_identity"][0] == NAMED
    assert records.endpoints[int(packets["destination_record"][0])] == Endpoint(NAMED)


def test_interner_forgets_and_keeps_numbers() -> None:
    """Numbers of kept values stay, forgotten ones are given anew."""
    interner: Interner[str] = Interner()
    one, two, three = map(interner.number, ("one", "two", "three"))
    interner.keep({one, three})
    assert [interner[number] for number in (one, two, three)] == ["one", None, "three"]
    assert interner.number("one") == one
    assert interner.number("four") == two  # which is nobody's
    assert interner.number("two") > three
    assert len(interner) == 5
    assert interner.number(None) == 0


def test_empty_batch() -> None:
    """No events, no rows."""
    rows = Enricher(Names(), Records()).enrich(events(event())[:0], wall_offset_ns=0)
    assert len(rows) == 0
    assert np.array_equal(rows, rows)


def test_verdicts_name_the_policies_behind_them() -> None:
    """By the rule's number; a default denial by who switched it on at that endpoint; nothing else has any."""
    verdict = {"kind": abi.EventKind.POLICY_VERDICT, "direction": abi.Direction.INGRESS, "endpoint_id": 7}
    allowed = event(**verdict, policy_rule=9, verdict=abi.Verdict.FORWARDED)
    denied = event(**verdict, policy_rule=0, verdict=abi.Verdict.DROPPED)
    rows, records = enrich(allowed, denied, event(policy_rule=9))
    found = [records.policies[int(number)] for number in rows["policies"]]
    assert [[each.name for each in names or ()] for names in found] == [["web"], ["closed"], []]
