"""A small cluster, and policies in few words."""

from __future__ import annotations

from typing import Any

from mycel.policy import evaluate_manifests

Object = dict[str, Any]


def namespace(name: str, **labels: str) -> Object:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(place: str, address: str, *, node: str = "n1", ports: tuple[Object, ...] = (), **labels: str) -> Object:
    """A Pod at `namespace/name`, with a label app=name unless it is given."""
    space, name = place.split("/")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": {"app": name} | labels},
        "spec": {"nodeName": node, "serviceAccountName": "sa", "containers": [{"name": "c", "ports": list(ports)}]},
        "status": {"podIP": address},
    }


def node(name: str, address: str, **labels: str) -> Object:
    """A Node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }


WEB = {"name": "http", "containerPort": 80, "protocol": "TCP"}
CLUSTER: list[Object] = [
    namespace("shop", team="a"),
    namespace("bank", team="b"),
    node("n1", "172.18.0.2", **{"node-role.kubernetes.io/control-plane": ""}),
    node("n2", "172.18.0.3"),
    pod("shop/web", "10.0.0.1", ports=(WEB,)),
    pod("shop/db", "10.0.0.2", node="n2", ports=({"name": "http", "containerPort": 8080},)),
    pod("bank/web", "10.0.1.1", node="n2", ports=(WEB,)),
]


def cnp(spec: Object, *, place: str = "shop/p", **more: Any) -> Object:
    """A CiliumNetworkPolicy."""
    space, name = place.split("/")
    head = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy"}
    return head | {"metadata": {"name": name, "namespace": space}, "spec": spec} | more


def ccnp(spec: Object, name: str = "p") -> Object:
    """A CiliumClusterwideNetworkPolicy."""
    head = {"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy"}
    return head | {"metadata": {"name": name}, "spec": spec}


def knp(spec: Object, place: str = "shop/k") -> Object:
    """A NetworkPolicy."""
    space, name = place.split("/")
    head = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    return head | {"metadata": {"name": name, "namespace": space}, "spec": spec}


def into(*entries: Object, app: str = "web", **more: Any) -> Object:
    """A spec about ingress of pods with a label app."""
    return {"endpointSelector": {"matchLabels": {"app": app}}, "ingress": list(entries)} | more


def out_of(*entries: Object, app: str = "web", **more: Any) -> Object:
    """A spec about egress of pods with a label app."""
    return {"endpointSelector": {"matchLabels": {"app": app}}, "egress": list(entries)} | more


def pods(**labels: str) -> Object:
    """A selector."""
    return {"matchLabels": {name.replace("__", ":"): value for name, value in labels.items()}}


def to_ports(*ports: str, **more: Any) -> list[Object]:
    """toPorts of `80/TCP`, `http/ANY`, `1-10/UDP`."""
    made: list[Object] = []
    for text in ports:
        port, _, protocol = text.partition("/")
        first, _, last = port.partition("-")
        made.append(
            {"port": first} | ({"endPort": int(last)} if last else {}) | ({"protocol": protocol} if protocol else {})
        )
    return [{"ports": made} | more]


def end(text: str) -> Object:
    """`shop/web`, `1.2.3.4` or `host`."""
    if "/" in text:
        return {"pod": text}
    return {"ip": text} if text[0].isdigit() or ":" in text else {"entity": text}


def ask(policies: list[Object], source: str, destination: str, what: str = "80/TCP", *, extra: Any = ()) -> Object:
    """The verdict on one flow; `what` is `80/TCP` or `8/ICMP`."""
    port, protocol = what.split("/")
    flow: Object = {"from": end(source), "to": end(destination), "protocol": protocol}
    flow |= {"type": int(port)} if protocol.startswith("ICMP") else {"port": int(port)}
    return evaluate_manifests([*CLUSTER, *extra, *policies], [flow])[0]


def verdict(policies: list[Object], source: str, destination: str, what: str = "80/TCP", *, extra: Any = ()) -> str:
    """In one word."""
    found: str = ask(policies, source, destination, what, extra=extra)["verdict"]
    return found
