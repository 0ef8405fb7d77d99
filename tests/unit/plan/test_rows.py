"""Map rows of one node."""

from __future__ import annotations

from dataclasses import replace

from mycel.abi import (
    AnnouncedKey,
    AnnouncedValue,
    BackendKey,
    EndpointFlags,
    EndpointKey,
    InterfaceKey,
    IpcacheFlags,
    IpcacheKey,
    IpcacheLpmKey,
    IpcacheValue,
    NodeKey,
    NodeValue,
    ReservedIdentity,
    ServiceKey,
    SlotKey,
)
from mycel.model.address import NO_ADDRESS, parse_address, parse_prefix
from mycel.model.service import EndpointSlice, Protocol, Service, ServicePort, ServiceRef, SliceEndpoint, SlicePort
from mycel.model.workload import EndpointId, IdentityId, LocalEndpoint, PodRef, PublishedEndpoint
from mycel.plan import rows
from mycel.plan.node_plan import APPLY_ORDER, NodePlan
from mycel.service.balance import balance
from mycel.service.numbering import Numbering

A = parse_address
THIS = rows.ThisNode("n1", (A("172.18.0.2"),), (A("10.244.0.1"),), (parse_prefix("10.244.0.0/24"),))
OTHER = rows.OtherNode("n2", (A("172.18.0.3"),), (A("10.244.1.1"),), (parse_prefix("10.244.1.0/24"),))
POD = LocalEndpoint(
    ref=PodRef("ns", "pod"),
    uid="u",
    container_id="c",
    endpoint_id=EndpointId(7),
    addresses=(A("10.244.0.5"),),
    interface="lxc1",
    ifindex=9,
    mac=b"\x02\0\0\0\0\1",
    node_mac=b"\x02\0\0\0\0\2",
    netns="/run/netns/x",
    identity=IdentityId(300),
)
REMOTE = PublishedEndpoint(PodRef("ns", "far"), EndpointId(3), IdentityId(400), (), ("10.244.1.9",), "172.18.0.3")
HOST_ROW = IpcacheValue(NO_ADDRESS, ReservedIdentity.HOST, IpcacheFlags.NODE)


def ipcache(**changes: object) -> dict[IpcacheKey, IpcacheValue]:
    inputs: dict[str, object] = {
        "others": [OTHER],
        "published": [REMOTE],
        "endpoints": [POD],
        "apiserver": [],
        "parse": A,
    }
    return rows.ipcache_rows(THIS, **(inputs | changes))  # type: ignore[arg-type]


def test_a_pod_has_the_same_row_by_interface_and_by_address() -> None:
    """Ready, with its identity and both MACs."""
    value = rows.interface_rows(rows.endpoint_values([POD]))[InterfaceKey(9)]
    assert rows.endpoint_rows(THIS, rows.endpoint_values([POD]))[EndpointKey(A("10.244.0.5"))] == value
    assert (value.identity, value.endpoint_id, value.flags) == (300, 7, EndpointFlags.READY)
    assert (value.ipv4, value.ipv6, value.mac) == (A("10.244.0.5"), NO_ADDRESS, POD.mac)


def test_a_pod_without_identity_is_not_ready() -> None:
    """The kernel then drops everything of it: never a guessed identity."""
    value = rows.endpoint_value(replace(POD, identity=IdentityId(0)))
    assert (value.flags, value.identity) == (0, 0)


def test_the_nodes_own_addresses_are_host_endpoints() -> None:
    """Underlay and router."""
    made = rows.endpoint_rows(THIS, [])
    assert {key.addr for key in made} == {A("172.18.0.2"), A("10.244.0.1")}
    assert {value.flags for value in made.values()} == {EndpointFlags.HOST | EndpointFlags.READY}


def test_ipcache_of_everybody() -> None:
    """Pods by name, nodes as remote nodes, ourselves as host."""
    tunnel = A("172.18.0.3")
    assert ipcache() == {
        IpcacheKey(A("10.244.0.5")): IpcacheValue(NO_ADDRESS, 300, IpcacheFlags.CLUSTER),
        IpcacheKey(A("10.244.1.9")): IpcacheValue(tunnel, 400, IpcacheFlags.CLUSTER | IpcacheFlags.TUNNEL),
        IpcacheKey(A("172.18.0.3")): IpcacheValue(tunnel, 6, IpcacheFlags.NODE | IpcacheFlags.TUNNEL),
        IpcacheKey(A("10.244.1.1")): IpcacheValue(tunnel, 6, IpcacheFlags.NODE | IpcacheFlags.TUNNEL),
        IpcacheKey(A("172.18.0.2")): HOST_ROW,
        IpcacheKey(A("10.244.0.1")): HOST_ROW,
    }


def test_ingress_proxies_have_addresses_of_their_own() -> None:
    """Of the node's stack, with their own identity; other nodes' are reached through the overlay."""
    this = replace(THIS, ingress_addresses=(A("10.244.0.254"),))
    row = rows.endpoint_rows(this, [])[EndpointKey(A("10.244.0.254"))]
    assert (row.identity, row.flags) == (ReservedIdentity.INGRESS, EndpointFlags.HOST | EndpointFlags.READY)
    other = replace(OTHER, ingress_addresses=(A("10.244.1.254"),))
    made = rows.ipcache_rows(this, others=[other], published=[REMOTE], endpoints=[POD], apiserver=[], parse=A)
    assert {key: value for key, value in made.items() if key not in ipcache()} == {
        IpcacheKey(A("10.244.0.254")): IpcacheValue(NO_ADDRESS, 8, IpcacheFlags.CLUSTER),
        IpcacheKey(A("10.244.1.254")): IpcacheValue(A("172.18.0.3"), 8, IpcacheFlags.CLUSTER | IpcacheFlags.TUNNEL),
    }


def test_published_endpoints_cannot_take_addresses_of_nodes_or_of_our_pods() -> None:
    """Whoever may write a CiliumEndpoint does not become the host."""
    forged = replace(REMOTE, addresses=("172.18.0.2", "172.18.0.3", "10.244.0.5"))
    assert ipcache(published=[forged]) == ipcache(published=[])


def test_published_endpoints_need_a_known_node_and_an_identity() -> None:
    """What cannot be reached or named is no row; this node's own objects are none either."""
    for useless in (
        replace(REMOTE, node_address="192.0.2.1"),
        replace(REMOTE, node_address=""),
        replace(REMOTE, identity=IdentityId(0)),
        replace(REMOTE, node_address="172.18.0.2"),
    ):
        assert ipcache(published=[useless]) == ipcache(published=[])


def test_an_api_server_on_a_node_is_told_from_other_nodes() -> None:
    """It keeps the tunnel; this node stays the host; outside of the nodes it is a prefix, and no row here."""
    made = ipcache(apiserver=[A("172.18.0.3"), A("172.18.0.1")])
    assert made[IpcacheKey(A("172.18.0.3"))].identity == ReservedIdentity.KUBE_APISERVER
    assert made[IpcacheKey(A("172.18.0.3"))].tunnel_endpoint == A("172.18.0.3")
    assert IpcacheKey(A("172.18.0.1")) not in made
    assert ipcache(apiserver=[A("172.18.0.2")])[IpcacheKey(A("172.18.0.2"))] == HOST_ROW


def test_addresses_are_announced_on_every_device_in_its_name() -> None:
    """Each device of the underlay says its own MAC."""
    made = rows.announced_rows([A("172.18.255.200")], [rows.Underlay(3, b"mac-03"), rows.Underlay(4, b"mac-04")])
    assert made == {
        AnnouncedKey(A("172.18.255.200"), 3): AnnouncedValue(b"mac-03"),
        AnnouncedKey(A("172.18.255.200"), 4): AnnouncedValue(b"mac-04"),
    }


def test_pod_networks_are_prefixes_of_128_bits() -> None:
    """An IPv4 /24 is a /120."""
    made = rows.prefix_rows(THIS, [OTHER])
    assert made[IpcacheLpmKey(120, A("10.244.1.0"))].tunnel_endpoint == A("172.18.0.3")
    assert made[IpcacheLpmKey(120, A("10.244.0.0"))].flags == IpcacheFlags.CLUSTER


def test_tunnels_are_accepted_from_the_other_nodes_only() -> None:
    """Numbered in order of names."""
    third = replace(OTHER, name="n0", addresses=(A("172.18.0.4"),))
    assert rows.node_rows([OTHER, third]) == {
        NodeKey(A("172.18.0.4")): NodeValue(1),
        NodeKey(A("172.18.0.3")): NodeValue(2),
    }


def test_frontends_of_a_service_share_slots() -> None:
    """ClusterIP and NodePort have one number; slots count from 1."""
    ref = ServiceRef("a", "b")
    service = Service(ref, ("10.96.0.9",), (), (), (ServicePort("", Protocol.TCP, 80, 30000),), (4,), 0, False, False)
    targets = (
        SliceEndpoint("10.244.1.9", "n2", True, True, False),
        SliceEndpoint("10.244.0.5", "n1", True, True, False),
    )
    frontends = balance([service], [EndpointSlice(ref, "s", (SlicePort("", Protocol.TCP, 8080),), targets)], "n1")
    made = rows.service_rows(frontends, service_number=Numbering().number, backend_number=Numbering().number)
    cluster = made.services[ServiceKey(A("10.96.0.9"), 80, 6)]
    node_port = made.services[ServiceKey(A("0.0.0.0"), 30000, 6)]
    assert (cluster.service_id, cluster.backend_count, cluster.local_count) == (node_port.service_id, 2, 1)
    assert set(made.slots) == {SlotKey(cluster.service_id, 1), SlotKey(cluster.service_id, 2)}
    first = made.backends[next(key for key in made.backends if key.backend_id == made.slots[SlotKey(1, 1)].backend_id)]
    assert (first.addr, first.port) == (A("10.244.0.5"), 8080)


def test_a_services_listener_has_its_cluster_ip_beside_it() -> None:
    """In slot 0, for every frontend of the service; only where there is a listener, and one for each family."""
    ref = ServiceRef("a", "b")
    addresses = ("10.96.0.9", "fd00::9")
    ports = (ServicePort("", Protocol.TCP, 80, 30000),)
    service = Service(ref, addresses, (), ("198.51.100.7",), ports, (4, 6), 0, False, False)
    frontends = balance([service], [], "n1")
    for redirects in ({}, dict.fromkeys(frontends, rows.Redirect(20001, 20001))):
        made = rows.service_rows(
            frontends, service_number=Numbering().number, backend_number=Numbering().number, redirects=redirects
        )
        seen = {
            made.backends[BackendKey(made.slots[SlotKey(row.service_id, 0)].backend_id)].addr
            for row in made.services.values()
            if SlotKey(row.service_id, 0) in made.slots
        }
        assert seen == ({A(each) for each in addresses} if redirects else set())


def test_plans_of_equal_rows_are_equal() -> None:
    """The version does not count; the order of writing points backwards."""
    empty = {name: {} for name in APPLY_ORDER}
    assert NodePlan(**empty, version=1) == NodePlan(**empty, version=2)  # type: ignore[arg-type]
    order = list(NodePlan(**empty).by_map())  # type: ignore[arg-type]
    assert order.index("backends") < order.index("service_slots") < order.index("services")
    assert order.index("policy") < order.index("endpoints") < order.index("aliases") < order.index("ipcache")
