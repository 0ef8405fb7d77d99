"""An object as it was written → EnvoyConfig, or the field that is wrong. The agents' reading is the only one there is:
what they refuse, admission and offline validation refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from mycel.envoy.config.fill import Filler
from mycel.envoy.config.model import NAMESPACED, OUTSIDE, ConfigRef, EnvoyConfig, Served
from mycel.envoy.config.names import Names
from mycel.envoy.config.refuse import ALLOWED, refuse
from mycel.envoy.config.walk import walk
from mycel.envoy.logs import Shown
from mycel.envoy.messages import InvalidResource, from_json, to_resource
from mycel.envoy.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource, TypeUrl
from mycel.model.service import ServiceRef
from mycel.policy.fields import Field, selector
from mycel.policy.labels import Selector

_TYPES = {each.rpartition("/")[2]: each for each in (LISTENER, ROUTES, CLUSTER, SECRET)}
_MOST = 1000  # resources of one object
_NAME_LIMIT = 256
_FIRST_PORT = 20000
SOURCE_LABEL = "cilium.io/use-original-source-address"
Messages = dict[TypeUrl, dict[str, tuple[Message, str]]]


def any_port(_listener: str) -> int:
    """A port for those who only want to know whether an object is valid."""
    return _FIRST_PORT


def ref_of(item: Mapping[str, Any]) -> ConfigRef:
    """Which object this is."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace") or "default" if item.get("kind") == NAMESPACED else ""
    return ConfigRef(namespace, metadata["name"])


def read(
    item: Mapping[str, Any], port: Callable[[str], int] = any_port, *, ingress: str = "", shown: Shown = ()
) -> EnvoyConfig:
    """The object's meaning; `port` gives each of its listeners one. Raises PolicyInvalid with the field's path.

    `ingress`: this node's address for clients of the outside. Objects that ask for it (label
    `cilium.io/use-original-source-address: "false"`) then have each resource twice, the second time for those clients.
    """
    ref = ref_of(item)
    spec = Field(item.get("spec"), "spec").knows("services", "backendServices", "resources", "nodeSelector")
    if spec["resources"].absent:
        raise spec["resources"].fail("is missing: a list of Envoy's resources, each with its @type")
    messages = _messages(spec["resources"])
    own: dict[TypeUrl, frozenset[str]] = {kind: frozenset(by_name) for kind, by_name in messages.items()}
    names = Names(ref, own, _filters(spec["backendServices"], ref))
    listeners = {name: port(name) for name in messages.get(LISTENER, {})}
    services = tuple(
        served for each in spec["services"].items() if (served := _served(each, names, listeners)) is not None
    )
    found = _finished(messages, names, listeners, shown=shown)
    twins: dict[int, int] = {}
    if ingress and _splits(item):
        outside = {name: port(name + OUTSIDE) for name in listeners}
        twins = {listeners[name]: outside[name] for name in listeners}
        theirs = Names(ref.outside, own, names.filters)
        again = _finished(_messages(spec["resources"]), theirs, outside, source=ingress, shown=shown)
        names.routes |= theirs.routes
        found = {kind: {**by_name, **again[kind]} for kind, by_name in found.items()}
    nodes = spec["nodeSelector"]
    return EnvoyConfig(
        ref=ref,
        resources=found,
        listeners=listeners,
        twins=twins,
        services=services,
        clusters=names.clusters,
        secrets=frozenset(names.secrets),
        unresolved=tuple(names.unresolved),
        nodes=Selector() if nodes.absent else selector(nodes, sources=False),
        routes=frozenset(names.routes),
    )


def _splits(item: Mapping[str, Any]) -> bool:
    """Whether clients of the outside are to be served in the node's name, since backends could not answer them."""
    return (item["metadata"].get("labels") or {}).get(SOURCE_LABEL) == "false"


def _finished(
    messages: Messages, names: Names, listeners: Mapping[str, int], *, source: str = "", shown: Shown
) -> dict[TypeUrl, dict[str, Resource]]:
    """The resources as Envoy gets them, by qualified name. Raises PolicyInvalid."""
    found: dict[TypeUrl, dict[str, Resource]] = {}
    for kind, by_name in messages.items():
        for name, (message, path) in by_name.items():
            qualified = names.ref.qualify(name)
            filler = Filler(names, name=qualified, port=listeners.get(name, 0), source=source, shown=shown)
            walk(message, path, before=refuse, after=filler, allowed=ALLOWED)
            if kind in (ROUTES, SECRET):
                setattr(message, "name", qualified)  # noqa: B010  the class is made at run time
            found.setdefault(kind, {})[qualified] = to_resource(message)
    return found


def _messages(resources: Field) -> Messages:
    """The resources by type and name, as Envoy's own schemas take them, with their paths."""
    found: Messages = {}
    for index, each in enumerate(resources.items()):
        if index >= _MOST:
            raise resources.fail(f"has more than {_MOST} resources: split the object")
        fields = dict(each.mapping())
        kind = _type(each)
        del fields["@type"]
        try:
            message: Any = from_json(kind, fields)
        except InvalidResource as exc:
            raise each.fail(str(exc)) from None
        name = message.name
        if not name or len(name) > _NAME_LIMIT or not name.isprintable():
            raise each["name"].fail(f"must be a name of at most {_NAME_LIMIT} printable characters")
        by_name = found.setdefault(kind, {})
        if name in by_name:
            raise each["name"].fail(f"is {name!r}, as that of another {kind.rpartition('.')[2]} of this object")
        by_name[name] = message, each.path
    return found


def _type(resource: Field) -> TypeUrl:
    text = resource["@type"].text()
    name = text.rpartition("/")[2]
    if name == ENDPOINTS.rpartition("/")[2]:
        raise resource["@type"].fail("endpoints come from Services: name a Cluster namespace/service, with type EDS")
    kind = _TYPES.get(name)
    if kind is None:
        raise resource["@type"].fail(f"is {text!r}: it may be {', '.join(sorted(_TYPES.values()))}")
    return kind


def _service(entry: Field, ref: ConfigRef) -> ServiceRef:
    namespace = entry["namespace"].text(ref.namespace)
    if not namespace:
        raise entry["namespace"].fail("is missing: a clusterwide object has no namespace of its own")
    return ServiceRef(namespace, entry["name"].text())


def _served(entry: Field, names: Names, listeners: Mapping[str, int]) -> Served | None:
    entry.knows("name", "namespace", "listener", "ports")
    service = _service(entry, names.ref)
    ports = entry["ports"].list_of(lambda each: each.number(least=1, most=65535) or 0)
    if not listeners:
        raise entry.fail("there is no Listener among resources its connections could go to")
    wanted = entry["listener"].text(next(iter(listeners)))
    if wanted not in listeners:
        raise entry["listener"].fail(f"names {wanted!r}: there is no Listener of that name among resources")
    if names.foreign(service):
        return None
    return Served(service, frozenset(ports or ()), listeners[wanted])


def _filters(entries: Field, ref: ConfigRef) -> dict[ServiceRef, tuple[str, ...]]:
    """Of services that are named as backends with their ports: which."""
    found: dict[ServiceRef, tuple[str, ...]] = {}
    for entry in entries.items():
        entry.knows("name", "namespace", "number")
        service = _service(entry, ref)
        numbers = entry["number"].list_of(lambda each: each.text())
        if numbers:
            found[service] = tuple(sorted({*found.get(service, ()), *numbers}))
    return found
