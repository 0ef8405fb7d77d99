"""Manifests → the maps one node of that cluster would hold, by the product's own rows, for the programs to look up.

The cluster's nodes meet on an underlay of their own (the addresses of `tests.bpf.world`), so that packets can
be wrapped for it whatever families the generated cluster has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mycel import abi
from mycel.model.address import Address, format_address, parse_address, parse_prefix
from mycel.model.workload import EndpointId, IdentityId, LocalEndpoint, PodRef, PublishedEndpoint
from mycel.plan import rows
from mycel.plan.rows import EndpointPolicy, OtherNode, ThisNode
from mycel.policy.judge import API_HOST
from mycel.policy.subjects import Subject
from mycel.policy.world import Pod, World
from tests.bpf.frames import NODE_MAC, POD_MAC
from tests.bpf.rows import mac
from tests.bpf.world import V4

STRANGER = "n3"
"""A node the generated clusters lack: a remote node without the API server, seen from everywhere."""
_UNDERLAY = {True: Address(parse_address(V4.node)), False: Address(parse_address(V4.remote_node))}
_UNDERLAY_OF_STRANGER = parse_address("172.31.77.4")
_REMOTE = {True: abi.ReservedIdentity.KUBE_APISERVER, False: abi.ReservedIdentity.REMOTE_NODE}
REVISION = 7


class NodeTables(NamedTuple):
    """`maps` by name, for `Datapath.write`; who is behind which interface; the rest is for expectations."""

    maps: Mapping[str, Mapping[Any, Any]]
    interfaces: Mapping[PodRef, int]
    endpoint_ids: Mapping[PodRef, int]


def node_addresses(world: World, node: str) -> list[Address]:
    """All addresses of a node of the manifests, or the stranger's."""
    if node == STRANGER:
        return [parse_address("172.19.0.3"), parse_address("fd00:19::3")]
    return [address for address, name in world.nodes.items() if name == node]


def subjects_of(world: World) -> dict[IdentityId, Subject]:
    """What every identity enforces; addresses that prefixes tell apart have become parties of their own before."""
    for pod in world.pods.values():
        if pod.party is not None:
            for address in pod.addresses:
                world.engine.alias(pod.party, address)
    for address, name in world.nodes.items():
        for seen_from in set(world.nodes.values()):
            _node_alias(world, name, address, seen_from)
    parties = {pod.party.identity: pod.party for pod in world.pods.values() if pod.party is not None}
    return {identity: world.engine.subject(party) for identity, party in parties.items()}


def policy_rows(world: World, subjects: Mapping[IdentityId, Subject]) -> dict[int, Any]:
    """The sets of all subjects: numbers are content's, so one map can serve both nodes."""
    numbers = {side.number for subject in subjects.values() for side in subject}
    return {number: each.rows for number, each in world.engine.sets(numbers).items()}


def tables(world: World, node: str, subjects: Mapping[IdentityId, Subject], ifindexes: list[int]) -> NodeTables:
    """The maps of `node`, except the policy sets; its pods stand behind `ifindexes`, in order."""
    names = sorted(set(world.nodes.values()))
    pods = [pod for pod in world.pods.values() if pod.party is not None]
    here = [pod for pod in pods if pod.node == node]
    endpoints = [
        _local(pod, number, ifindex) for number, (pod, ifindex) in enumerate(zip(here, ifindexes, strict=False), 1)
    ]
    assert len(endpoints) == len(here), "not enough interfaces for the pods of a node"
    policies = {
        each.endpoint_id: EndpointPolicy(
            subjects[each.identity].ingress.number, subjects[each.identity].egress.number, REVISION
        )
        for each in endpoints
    }
    this = ThisNode(
        node,
        (_UNDERLAY[True], *node_addresses(world, node)),
        (),
        _pod_networks(names.index(node)),
        (parse_prefix("10.96.0.0/16"), parse_prefix("fd00:96::/112")),
    )
    others = [
        OtherNode(name, (_UNDERLAY[False], *node_addresses(world, name)), (), _pod_networks(names.index(name)))
        for name in names
        if name != node
    ]
    others.append(OtherNode(STRANGER, (_UNDERLAY_OF_STRANGER, *node_addresses(world, STRANGER)), (), ()))
    networks = {(each.address, each.length): number for each, number in world.engine.networks.items()}
    return NodeTables(
        {
            "endpoints": rows.endpoint_rows(this, rows.endpoint_values(endpoints, policies)),
            "interfaces": rows.interface_rows(rows.endpoint_values(endpoints, policies)),
            "nodes": rows.node_rows(others),
            "ipcache": rows.ipcache_rows(
                this,
                others=others,
                published=[_published(pod) for pod in pods if pod.node != node],
                endpoints=endpoints,
                apiserver=[
                    *(address for name in world.api_nodes for address in node_addresses(world, name)),
                    *world.api_outside,
                ],
                parse=parse_address,
            ),
            "ipcache_lpm": rows.prefix_rows(this, others, networks),
            "aliases": _aliases(world, node, pods),
        },
        {each.ref: each.ifindex for each in endpoints},
        {each.ref: each.endpoint_id for each in endpoints},
    )


def _aliases(world: World, node: str, pods: list[Pod]) -> dict[abi.AliasKey, abi.AliasValue]:
    """Addresses that policy knows by another identity than the kernel's own."""
    found: dict[Address, tuple[IdentityId, int]] = {}
    for pod in pods:
        assert pod.party is not None
        for address in pod.addresses:
            found[address] = world.engine.alias(pod.party, address), pod.party.identity
    for address, name in world.nodes.items():
        found[address] = (
            _node_alias(world, name, address, node),
            abi.ReservedIdentity.HOST if name == node else _REMOTE[name in world.api_nodes],
        )
    return {abi.AliasKey(address): abi.AliasValue(alias) for address, (alias, own) in found.items() if alias != own}


def _node_alias(world: World, name: str, address: Address, seen_from: str) -> IdentityId:
    """Who a node's address is to policy on a node, whose engine here answers for all of them."""
    runs_api = name in world.api_nodes
    own = IdentityId(abi.ReservedIdentity.HOST if name == seen_from else _REMOTE[runs_api])
    number = API_HOST if runs_api and name == seen_from else own
    return world.engine.alias(world.parties[number], address)


def _pod_networks(index: int) -> tuple[tuple[Address, int], ...]:
    return parse_prefix(f"10.244.{index}.0/24"), parse_prefix(f"fd00:10:244:{index}::/64")


def _local(pod: Pod, number: int, ifindex: int) -> LocalEndpoint:
    assert pod.party is not None
    return LocalEndpoint(
        ref=pod.ref,
        uid="",
        container_id="",
        endpoint_id=EndpointId(number),
        addresses=pod.addresses,
        interface="",
        ifindex=ifindex,
        mac=mac(POD_MAC),
        node_mac=mac(NODE_MAC),
        netns="",
        identity=pod.party.identity,
    )


def _published(pod: Pod) -> PublishedEndpoint:
    assert pod.party is not None
    texts = tuple(format_address(each) for each in pod.addresses)
    return PublishedEndpoint(pod.ref, EndpointId(1), pod.party.identity, (), texts, V4.remote_node)
