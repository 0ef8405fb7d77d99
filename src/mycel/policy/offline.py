"""Verdicts for manifests and flows, without a cluster: through the rows the kernel would hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from mycel.abi import Direction
from mycel.identity.reserved import RESERVED_LABELS, WORLD
from mycel.model.address import Address, format_address, is_ipv4
from mycel.model.workload import IdentityId, PodRef
from mycel.policy.behind import NobodyAnswers, behind
from mycel.policy.fields import Field, read_address
from mycel.policy.judge import Judge
from mycel.policy.rules import ICMP, ICMPV6, PROTOCOLS, Decision, Outcome, PortMatch, Reason
from mycel.policy.services import Service
from mycel.policy.subjects import Subject
from mycel.policy.world import Pod, World, read_world

_BATCH = 20_000
_STRICTEST = (Outcome.DENIED, Outcome.L7, Outcome.ALLOWED)
_NO_POLICY = Decision(Outcome.ALLOWED, Reason.NO_POLICY)
_ENTITIES = {name.removeprefix("reserved:"): number for number, (name, *_) in RESERVED_LABELS.items() if number}


class End(NamedTuple):
    """One end of a flow: a pod, an address, an entity, or names that DNS answered with an address for."""

    pod: Pod | None = None
    address: Address | None = None
    entity: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.pod is not None:
            return str(self.pod.ref)
        named = ",".join(self.names)
        if self.address is not None:
            return f"{format_address(self.address)} ({named})" if named else format_address(self.address)
        return named or self.entity


class Flow(NamedTuple):
    """A connection to be judged."""

    id: str | int
    source: End
    destination: End
    protocol: int
    port: int  # of the destination; ICMP: the type
    ipv6: bool = False
    service: str = ""  # what was dialled, when `destination` is behind a service: shop/db:80/TCP
    others: tuple[Flow, ...] = ()  # to whom else it may lead then

    @property
    def target(self) -> str:
        """Destination and port: `shop/db:5432/TCP`, `shop/db ICMP type 8`."""
        port, to = str(PortMatch(self.protocol, self.port, self.port)), str(self.destination)
        if "/" not in port:
            return f"{to} {port}"
        return f"[{to}]:{port}" if ":" in to else f"{to}:{port}"

    def __str__(self) -> str:
        return f"{self.source} → {self.target}"


class Verdicts(NamedTuple):
    """What happens to a flow. Of one to a service: to the strictest it may lead to, `flow` says which."""

    flow: Flow
    egress: Decision
    ingress: Decision
    others: tuple[Verdicts, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """Both directions together."""
        return min(self.egress.outcome, self.ingress.outcome, key=_STRICTEST.index)

    def as_json(self) -> dict[str, Any]:
        """The shape `mycel policy evaluate` prints."""
        shown = {
            "id": self.flow.id,
            "verdict": self.outcome.value,
            "egress": _side(self.egress),
            "ingress": _side(self.ingress),
        }
        return shown | service_json(self.flow, self.others)


def service_json(flow: Flow, others: Iterable[Verdicts]) -> dict[str, Any]:
    """What is said besides of a flow to a service."""
    if not flow.service:
        return {}
    verdicts = {each.flow.target: each.outcome.value for each in others}
    return {"service": flow.service, "backend": flow.target, "others": verdicts}


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
    """Verdicts of flows in a world, one each."""
    found = iter(_evaluate(world, [each for flow in flows for each in (flow, *flow.others)]))
    return [_strictest(list(islice(found, 1 + len(flow.others)))) for flow in flows]


def _strictest(found: list[Verdicts]) -> Verdicts:
    if len(found) == 1:
        return found[0]
    chosen = min(found, key=lambda each: _STRICTEST.index(each.outcome))
    return chosen._replace(others=tuple(each for each in found if each is not chosen))


def _evaluate(world: World, flows: Sequence[Flow]) -> list[Verdicts]:
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
    """One line of a file of flows; what is dialled may be a service. Raises PolicyInvalid."""
    root = Field(dict(flow), "").knows("id", "from", "to", "protocol", "port", "type", "family")
    source, service = _end(world, root["from"]), _service_named(world, root["to"])
    destination = End(address=next(iter(service.own), None)) if service else _end(world, root["to"])
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
        made = made._replace(protocol=ICMPV6 if ipv6 else ICMP, port=number)
    else:
        port = root["port"].number(least=0, most=65535)
        if port is None and named in ("TCP", "UDP", "SCTP"):
            raise root["port"].fail(f"{named} needs a port")
        made = made._replace(port=port or 0)
    if service is None and destination.address is not None:
        service = world.services.at(destination.address, made.protocol, made.port)
    try:
        return made if service is None else _translated(world, made, service)
    except NobodyAnswers as exc:
        raise root["to"].fail(str(exc)) from None


def _service_named(world: World, field: Field) -> Service | None:
    """A service in the place of a pod; a pod of the name goes first."""
    if field["pod"].absent:
        return None
    namespace, _, name = field["pod"].text().rpartition("/")
    ref = PodRef(namespace or "default", name)
    return None if ref in world.pods else world.services.by_place.get(ref)


def _translated(world: World, flow: Flow, service: Service) -> Flow:
    """The connection a node makes of one to a service, with those it might have been. Raises NobodyAnswers."""
    dialled = f"{service}:{PortMatch(flow.protocol, flow.port, flow.port)}"
    first, *others = (
        flow._replace(destination=End(each.pod, each.address), port=each.port, service=dialled)
        for each in behind(world, service, flow.protocol, flow.port, ipv6=flow.ipv6)
    )
    return first._replace(others=tuple(others))


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
