"""Verdicts for manifests and flows, without a cluster: through the rows the kernel would hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from mycel.abi import Direction
from mycel.identity.reserved import RESERVED_LABELS, WORLD
from mycel.model.address import Address, is_ipv4
from mycel.model.workload import IdentityId, PodRef
from mycel.policy.fields import Field
from mycel.policy.judge import Judge
from mycel.policy.rules import ICMP, ICMPV6, PROTOCOLS, Decision, Outcome, Reason
from mycel.policy.subjects import Subject
from mycel.policy.world import Pod, World, read_address, read_world

_BATCH = 20_000
_NO_POLICY = Decision(Outcome.ALLOWED, Reason.NO_POLICY)
_ENTITIES = {name.removeprefix("reserved:"): number for number, (name, *_) in RESERVED_LABELS.items() if number}


class End(NamedTuple):
    """One end of a flow: a pod, an address, an entity, or names that DNS answered with an address for."""

    pod: Pod | None = None
    address: Address | None = None
    entity: str = ""
    names: tuple[str, ...] = ()


class Flow(NamedTuple):
    """A connection to be judged."""

    id: str | int
    source: End
    destination: End
    protocol: int
    port: int  # of the destination; ICMP: the type
    ipv6: bool = False


class Verdicts(NamedTuple):
    """What happens to a flow."""

    flow: Flow
    egress: Decision
    ingress: Decision

    @property
    def outcome(self) -> Outcome:
        """Both directions together."""
        both = (self.egress.outcome, self.ingress.outcome)
        return next((each for each in (Outcome.DENIED, Outcome.L7) if each in both), Outcome.ALLOWED)

    def as_json(self) -> dict[str, Any]:
        """The shape `mycel policy evaluate` prints."""
        return {
            "id": self.flow.id,
            "verdict": self.outcome.value,
            "egress": _side(self.egress),
            "ingress": _side(self.ingress),
        }


def _side(decision: Decision) -> dict[str, Any]:
    return {
        "verdict": decision.outcome.value,
        "reason": decision.reason.value,
        "rules": [str(rule) for rule in decision.rules],
    }


def evaluate_manifests(
    objects: Iterable[Mapping[str, Any]], flows: Iterable[Mapping[str, Any]] | None = None, *, cluster: str = ""
) -> list[dict[str, Any]]:
    """A verdict per flow; without flows, of all pairs of pods on all container ports.

    Raises ManifestInvalid for an object, PolicyInvalid for a flow, both with the field's path.
    """
    world = read_world(objects, cluster=cluster)
    parsed = all_pairs(world) if flows is None else [parse_flow(world, each, at) for at, each in enumerate(flows)]
    return [verdicts.as_json() for verdicts in evaluate_all(world, parsed)]


def evaluate_all(world: World, flows: Iterable[Flow]) -> Iterator[Verdicts]:
    """Verdicts of many flows, which need not all be there at once."""
    left = iter(flows)
    while batch := list(islice(left, _BATCH)):
        yield from evaluate(world, batch)


def evaluate(world: World, flows: Sequence[Flow]) -> list[Verdicts]:
    """Verdicts of flows in a world."""
    # Who a flow is about has to be known before rows are asked: an address may get an identity of its own.
    peers = [(peer_of(world, flow, Direction.EGRESS), peer_of(world, flow, Direction.INGRESS)) for flow in flows]
    subjects: dict[IdentityId, Subject] = {}
    judge = Judge(world.engine, allow_host=world.allow_host)

    def decide(pod: Pod | None, peer: IdentityId, direction: Direction, flow: Flow) -> Decision:
        if pod is None or pod.party is None:
            return _NO_POLICY  # nodes have no policy, nor has the outside
        number = pod.party.identity
        subject = subjects.get(number)
        if subject is None:
            subject = subjects[number] = world.engine.subject(pod.party)
        return judge.decide(subject, direction, peer, protocol=flow.protocol, port=flow.port)

    found: list[Verdicts] = []
    for flow, (egress_peer, ingress_peer) in zip(flows, peers, strict=True):
        source, destination = flow.source.pod, flow.destination.pod
        if source is not None and source is destination:
            found.append(Verdicts(flow, _NO_POLICY, _NO_POLICY))  # never leaves the pod
            continue
        found.append(
            Verdicts(
                flow,
                decide(source, egress_peer, Direction.EGRESS, flow),
                decide(destination, ingress_peer, Direction.INGRESS, flow),
            )
        )
    return found


def peer_of(world: World, flow: Flow, direction: Direction) -> IdentityId:
    """Who the other end is to the node that judges a direction."""
    ingress = direction == Direction.INGRESS
    subject, end = (flow.destination, flow.source) if ingress else (flow.source, flow.destination)
    node = subject.pod.node if subject.pod else ""
    if end.pod is not None and end.pod.party is not None:
        address = end.address or end.pod.address(ipv6=flow.ipv6)
        return world.pod_identity(end.pod.party, address)
    if end.pod is not None:
        return world.node_identity(end.pod.node, end.address, seen_from=node, ipv6=flow.ipv6, ingress=ingress)
    if end.names and not ingress and (named := world.named_identity(end.names, end.address, ipv6=flow.ipv6)):
        return named
    if end.address is not None:
        return world.identity_of(end.address, seen_from=node, ipv6=flow.ipv6, ingress=ingress)
    match end.entity:
        case "host":
            return world.node_identity(node, None, seen_from=node, ipv6=flow.ipv6, ingress=ingress)
        case "":
            return WORLD  # a name no rule is about
        case "kube-apiserver":
            return world.apiserver_identity(seen_from=node, ipv6=flow.ipv6, ingress=ingress)
        case entity:
            return _ENTITIES[entity]


def _is_ipv6(source: End, destination: End) -> bool:
    """The family of an address; else IPv4, unless a pod has none of that."""
    addresses = [end.address for end in (source, destination) if end.address]
    if addresses:
        return not all(is_ipv4(address) for address in addresses)
    pods = [end.pod for end in (source, destination) if end.pod and end.pod.addresses]
    return any(pod.address(ipv6=False) is None for pod in pods)


def parse_flow(world: World, flow: Mapping[str, Any], index: int = 0) -> Flow:
    """One line of a file of flows. Raises PolicyInvalid."""
    root = Field(dict(flow), "").knows("id", "from", "to", "protocol", "port", "type", "family")
    source, destination = _end(world, root["from"]), _end(world, root["to"])
    named = root["protocol"].text("TCP").upper()
    if named not in PROTOCOLS:
        raise root["protocol"].fail(f"{named!r} is not a protocol: {', '.join(PROTOCOLS)} are")
    family = root["family"].number(least=4, most=6)
    ipv6 = named == "ICMPV6" or (family == 6 if family else _is_ipv6(source, destination))
    name = str(index) if root["id"].absent else root["id"].value
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise root["id"].fail("must be a string or a whole number")
    made = Flow(name, source, destination, PROTOCOLS[named], 0, ipv6)
    if named in ("ICMP", "ICMPV6"):
        number = root["type"].number(least=0, most=255)
        if number is None:
            number = 128 if ipv6 else 8  # echo request
        return made._replace(protocol=ICMPV6 if ipv6 else ICMP, port=number)
    port = root["port"].number(least=0, most=65535)
    if port is None and named in ("TCP", "UDP", "SCTP"):
        raise root["port"].fail(f"{named} needs a port")
    return made._replace(port=port or 0)


def _end(world: World, field: Field) -> End:
    field.knows("pod", "ip", "entity", "names")
    names = tuple(item.text() for item in field["names"].items())
    given = [name for name in ("pod", "ip", "entity") if not field[name].absent]
    if names and not given:
        return End(names=names)
    if len(given) != 1:
        raise field.fail("takes one of pod, ip and entity")
    text = field[given[0]].text()
    match given[0]:
        case "pod":
            namespace, _, name = text.rpartition("/")
            pod = world.pods.get(PodRef(namespace or "default", name))
            if pod is None:
                raise field["pod"].fail(f"there is no pod or service {text}")
            return End(pod)
        case "ip":
            address = read_address(field["ip"])
            return End(world.by_address.get(address), address, names=names)
        case _:
            if text not in _ENTITIES:
                raise field["entity"].fail(f"{text!r} is not an entity with an identity: {', '.join(_ENTITIES)} are")
            return End(entity=text)


def all_pairs(world: World) -> Iterator[Flow]:
    """Every pod to every other one on every container port."""
    return (
        Flow(
            f"{source.ref} -> {pod.ref}:{port.port}/{port.protocol}",
            End(source),
            End(pod),
            PROTOCOLS[port.protocol],
            port.port,
        )
        for source in world.pods.values()
        for pod in world.pods.values()
        if pod is not source
        for port in pod.ports
    )
