"""Seeded generator of clusters, policy sets and flows, as plain dicts that go through JSON and YAML unchanged.

One seed is one `State`; equal seeds give equal states on every machine (only `random.Random` is asked). Policies are
such as the API accepts: one kind of peer an entry, L7 where it may stand, no HTTP next to DNS on one port.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from tests.oracle.model import Verdict, verdict
from tests.oracle.parties import CLUSTER_KEY, CONTROL_PLANE, NAMESPACE_KEY, NAMESPACE_LABELS, Cluster, Object
from tests.oracle.services import translated

NAMESPACES = ("shop", "bank", "ops")
NODES = ("n1", "n2")
APPS = ("web", "api", "db")
GROUPS = ("partners", "empty-group")
OUTSIDE = ("192.0.2.10", "192.0.2.200", "192.0.3.1", "198.51.100.9", "2001:db8:1::10", "2001:db8:2::9")
# Outside: a policy may name the very address, a prefix over it, a service's addresses, or nothing but everything.
_APISERVERS_IPV4 = ("192.0.2.200", "198.51.100.9", "192.0.3.1")
_APISERVERS_IPV6 = ("2001:db8:1::10", "2001:db8:2::9")
BLOCKS = (
    *("0.0.0.0/0", "192.0.2.0/24", "192.0.2.0/25", "192.0.2.10/32", "192.0.2.200/32", "192.0.0.0/16"),
    *("198.51.100.0/24", "10.244.0.0/16", "10.244.1.0/24", "10.244.1.11/32", "172.18.0.0/16", "128.0.0.0/1"),
    *("::/0", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::10/128", "fd00:10:244::/56", "fd00:10:244:1::b/128"),
)
ENTITIES = (
    *("all", "world", "cluster", "host", "remote-node", "kube-apiserver", "world-ipv4", "world-ipv6"),
    *("none", "init", "ingress", "health", "unmanaged"),
)
PORTS = (79, 80, 80, 80, 81, 81, 82, 83, 443, 443, 8080, 8080, 8080, 53, 53, 8000, 8999, 9000)


class State(NamedTuple):
    """A cluster (without policies), its policies, and flows to ask about."""

    seed: int
    objects: list[Object]
    policies: list[Object]
    flows: list[Object]


class Options(NamedTuple):
    """How large a state is and which parts of it exist."""

    flows: int = 200
    policies: int = 6
    cidr_modes: bool = True  # policy-cidr-match-mode other than none


def state(seed: int, options: Options = Options()) -> State:  # noqa: B008 - immutable
    """The state of a seed."""
    random = Random(seed)
    objects = cluster(random, options)
    policies = [_policy(random, number) for number in range(random.randint(random.choice((1, 3)), options.policies))]
    return State(seed, objects, policies, flows(random, objects, options.flows))


def cases(seeds: range, options: Options = Options()) -> Iterator[tuple[State, list[Verdict]]]:  # noqa: B008
    """States with what the model expects of each of their flows, for every tier."""
    for seed in seeds:
        made = state(seed, options)
        world = Cluster(made.objects)
        yield made, [verdict(world, made.policies, flow) for flow in made.flows]


# ---- the cluster


def cluster(random: Random, options: Options) -> list[Object]:
    """3 namespaces × 3 pods on 2 nodes, a pod on its node's network, services, groups and configuration."""
    families = random.choice(((4, 6), (4, 6), (4, 6), (4,), (6,)))
    objects: list[Object] = []
    config: dict[str, str] = {}
    if random.random() < 0.5:
        config["cluster-name"] = random.choice(("kind-mycel", "east"))
    if options.cidr_modes and random.random() < 0.25:
        config["policy-cidr-match-mode"] = random.choice(("nodes", "pods", "nodes pods"))
    if random.random() < 0.1:
        config["allow-localhost"] = random.choice(("policy", "always"))
    if config or random.random() < 0.5:
        meta = {"name": "cilium-config", "namespace": "kube-system"}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": config})
    for number, name in enumerate(NODES, 1):
        labels = {"kubernetes.io/hostname": name, "zone": f"z{number}"} | ({CONTROL_PLANE: ""} if number == 1 else {})
        held = {4: f"172.18.0.{number}", 6: f"fd00:18::{number}"}
        addresses = [{"type": "InternalIP", "address": held[family]} for family in families]
        addresses.append({"type": "Hostname", "address": name})
        meta = {"name": name, "labels": labels}
        objects.append({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"addresses": addresses}})
    for name in NAMESPACES:
        labels = {"env": random.choice(("prod", "dev"))}
        if random.random() < 0.7:
            labels["kubernetes.io/metadata.name"] = name
        if random.random() < 0.5:
            labels["team"] = random.choice(("red", "blue"))
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        for app in APPS:
            objects.append(_pod(random, name, app, families, len(objects)))
    proxy = _pod(random, "ops", "proxy", families, 0)
    proxy["spec"] |= {"hostNetwork": True, "nodeName": "n2"}
    node = next(found for found in objects if found["metadata"]["name"] == "n2")
    proxy["status"]["podIPs"] = [{"ip": entry["address"]} for entry in node["status"]["addresses"][:-1]]
    proxy["status"]["podIP"] = proxy["status"]["podIPs"][0]["ip"]
    objects.append(proxy)
    held = [entry["ip"] for pod in objects if pod["kind"] == "Pod" for entry in pod["status"]["podIPs"]]
    return [*objects, *_services(random, families, held), *_apiserver(random), *_groups(random)]


def _pod(random: Random, namespace: str, app: str, families: tuple[int, ...], number: int) -> Object:
    labels = {"app": random.choice((app, app, "web")), "pod-template-hash": random.choice(("aa", "bb"))}
    if random.random() < 0.6:
        labels["tier"] = random.choice(("front", "back"))
    if random.random() < 0.3:
        labels["app.kubernetes.io/part-of"] = "suite"
    if random.random() < 0.1:
        labels["io.cilium.k8s.policy.serviceaccount"] = "admin"  # not theirs to say
    if random.random() < 0.15:
        labels["io.cilium.k8s.namespace.labels.team"] = "red"  # nor this
    node = random.choice(NODES)
    held = {4: f"10.244.{NODES.index(node)}.{number}", 6: f"fd00:10:244:{NODES.index(node)}::{number:x}"}
    ports: list[Object] = [{"name": "http", "containerPort": random.choice((8080, 8080, 8080, 80))}]
    if random.random() < 0.5:
        ports.append({"name": "dns", "containerPort": 53, "protocol": "UDP"})
    if random.random() < 0.3:
        ports.append({"name": "Metrics" if random.random() < 0.1 else "metrics", "containerPort": 81})
    spec: Object = {"nodeName": node, "containers": [{"name": "main", "image": "x", "ports": ports}]}
    if random.random() < 0.1:
        del spec["containers"][0]["ports"]
    if random.random() < 0.1:
        second = [{"name": "http", "containerPort": 81}]
        spec["containers"].append({"name": "second", "image": "x", "ports": second})
    if random.random() < 0.5:
        spec["serviceAccountName"] = random.choice(("admin", "default", "robot"))
    addresses = [held[family] for family in families]
    status = {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
    meta = {"name": app, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}


def _services(random: Random, families: tuple[int, ...], pods: list[str]) -> Iterator[Object]:
    """`front` of pods (twice), `legacy` of addresses outside, `mixed` of both, and `bare`, which is headless."""
    outer = [OUTSIDE[0], OUTSIDE[4]]  # shared by port; the first service by name has what two claim
    for number, namespace in enumerate(NAMESPACES[:2]):
        meta = {"name": "front", "namespace": namespace, "labels": {"role": random.choice(("public", "private"))}}
        port = {"port": 8080 if number else 80} | random.choice(({}, {"targetPort": 8080}, {"targetPort": "http"}))
        spec = {"ports": [port], "selector": {"app": random.choice(APPS)}, "externalIPs": outer}
        yield _service(meta, spec, families, number)
    meta = {"name": "legacy", "namespace": "shop", "labels": {"role": "public"}}
    port = {"port": 80, "protocol": "TCP", "targetPort": 8080}
    yield _service(meta, {"ports": [port], "externalIPs": outer}, families, 2)
    for kind, addresses in (("IPv4", ["192.0.2.10", "198.51.100.9"]), ("IPv6", ["2001:db8:1::10"])):
        endpoints: list[Object] = [{"addresses": addresses[:1]}, {"addresses": addresses[1:] or addresses}]
        yield _slice("legacy", "shop", kind, endpoints, [{"port": 8080, "protocol": "TCP"}])
    meta = {"name": "bare", "namespace": "bank"}
    spec = {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}], "externalIPs": [OUTSIDE[2]]}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
    yield from _mixed(random, families, pods)


def _mixed(random: Random, families: tuple[int, ...], pods: list[str]) -> Iterator[Object]:
    """Behind it is who slices, or Endpoints, or else the selector say."""
    namespace = random.choice(NAMESPACES)
    web = {"name": "web", "port": 80, "protocol": "TCP", "targetPort": random.choice((8080, 81, "http"))}
    dns = {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": random.choice((53, "dns"))}
    spec = {"ports": [web, dns, {"name": "meter", "port": 9000, "targetPort": "metrics"}]}
    spec["selector"] = random.choice(({"app": "web"}, {"pod-template-hash": "aa"}))
    made = _service({"name": "mixed", "namespace": namespace}, spec, families, 3)
    outer = [{"ip": OUTSIDE[3]}, {"ip": OUTSIDE[5]}, {"ip": OUTSIDE[1], "ipMode": "Proxy"}]
    yield made | {"status": {"loadBalancer": {"ingress": outer}}}
    there = [{"name": "web", "port": random.choice((80, 81, 8080))}, {"name": "meter", "port": 81}]
    there.append({"name": "dns", "port": 53, "protocol": "UDP"})
    if random.random() < 0.3:
        subset = {"addresses": [{"ip": ip} for ip in random.sample(pods, 3)], "ports": there}
        late = {"notReadyAddresses": [{"ip": random.choice(pods)}]}
        yield {"apiVersion": "v1", "kind": "Endpoints", "metadata": made["metadata"], "subsets": [subset | late]}
    pick = random.random()
    for family in families if pick < 0.6 else ():
        several = [ip for ip in (*pods, *OUTSIDE) if (6 if ":" in ip else 4) == family]
        endpoints: list[Object] = [{"addresses": random.sample(several, random.choice((1, 1, 2)))} for _ in range(4)]
        endpoints[1]["conditions"], endpoints[2]["conditions"] = {"ready": True}, {"ready": False}
        yield _slice("mixed", namespace, f"IPv{family}", endpoints, random.sample(there, random.randint(2, 3)))
    if pick < 0.1:
        yield _slice("mixed", namespace, "FQDN", [{"addresses": ["example.org"]}], there)
    elif pick > 0.9:  # of no service, whatever its name
        orphan = _slice("mixed", namespace, "IPv4", [{"addresses": [OUTSIDE[0]]}], there)
        yield orphan | {"metadata": {"name": "mixed", "namespace": namespace}}


def _service(meta: Object, spec: Object, families: tuple[int, ...], number: int) -> Object:
    own = [f"10.96.0.{number + 9}" if family == 4 else f"fd00:96::{number + 9}" for family in families]
    spec = {"clusterIP": own[0], "clusterIPs": own, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def _slice(service: str, namespace: str, kind: str, endpoints: list[Object], ports: list[Object]) -> Object:
    labels = {"kubernetes.io/service-name": service}
    meta = {"name": f"{service}-{kind.lower()}", "namespace": namespace, "labels": labels}
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta}
    return {**head, "addressType": kind, "endpoints": endpoints, "ports": ports}


def _apiserver(random: Random) -> Iterator[Object]:
    """Where the API server is: not said, on a node, or outside, in either family."""
    if random.random() < 0.6:
        return
    places = {"IPv4": ("172.18.0.1", "172.18.0.2", *_APISERVERS_IPV4), "IPv6": _APISERVERS_IPV6}
    for kind, addresses in places.items():
        if kind == "IPv4" or random.random() < 0.3:
            yield {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"kubernetes-{kind.lower()}",
                    "namespace": "default",
                    "labels": {"kubernetes.io/service-name": "kubernetes"},
                },
                "addressType": kind,
                "endpoints": [{"addresses": [random.choice(addresses)]}],
                "ports": [{"port": 6443, "protocol": "TCP"}],
            }


def _groups(random: Random) -> Iterator[Object]:
    for name, blocks in zip(GROUPS, (random.sample(BLOCKS, 3), []), strict=True):
        whole = [block if "/" in block else f"{block}/32" for block in blocks]
        meta = {"name": name}
        yield {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumCIDRGroup",
            "metadata": meta,
            "spec": {"externalCIDRs": whole},
        }


# ---- flows


def flows(random: Random, objects: list[Object], count: int) -> list[Object]:
    """`count` flows with a pod at one end at least; some go to services, but none where nobody answers."""
    world = Cluster(objects)
    services = [found for found in objects if found["kind"] == "Service" and "clusterIPs" in found["spec"]]
    pods = [f"{o['metadata']['namespace']}/{o['metadata']['name']}" for o in objects if o["kind"] == "Pod"]
    held = [entry["ip"] for o in objects if o["kind"] == "Pod" for entry in o["status"]["podIPs"]]
    families = sorted({6 if ":" in address else 4 for address in held})
    nodes = [a["address"] for o in objects if o["kind"] == "Node" for a in o["status"]["addresses"][:-1]]
    made: list[Object] = []
    for number in range(count):
        family = random.choice(families)
        pick = random.random()
        if pick < 0.6:
            other: Object = {"pod": random.choice(pods)}
        elif pick < 0.7:
            other = {"entity": random.choice(("host", "remote-node", "kube-apiserver"))}
        else:
            several = OUTSIDE if pick < 0.9 else (nodes if pick < 0.95 else held)
            other = {"ip": random.choice([ip for ip in several if (6 if ":" in ip else 4) == family])}
        ends = [{"pod": random.choice(pods)}, other]
        random.shuffle(ends)
        flow: Object = {"id": f"f{number}", "from": ends[0], "to": ends[1], "family": family}
        protocol = random.choice(("TCP", "TCP", "TCP", "UDP", "UDP", "SCTP", "ICMP"))
        if protocol == "ICMP":
            flow |= {"protocol": protocol, "type": random.choice((8, 0, 13) if family == 4 else (128, 129, 134))}
        else:
            flow |= {
                "protocol": protocol,
                "port": random.choice(PORTS) if random.random() < 0.9 else random.randint(1, 65535),
            }
        if random.random() < 0.15:
            flow |= {"from": {"pod": random.choice(pods)}} | _to_service(random, random.choice(services), family)
            flow.pop("type", None)
        if not translated(world, flow):
            flow["to"] = {"pod": random.choice(pods)}
        made.append(flow)
    return made


def _to_service(random: Random, service: Object, family: int) -> Object:
    """Destination, protocol and port, of those it has."""
    spec, balancer = service["spec"], service.get("status", {"loadBalancer": {"ingress": ()}})["loadBalancer"]
    several = [*spec["clusterIPs"], *spec.get("externalIPs", ()), *(entry["ip"] for entry in balancer["ingress"])]
    address = random.choice([ip for ip in several if (6 if ":" in ip else 4) == family])
    port = random.choice(spec["ports"])
    return {"to": {"ip": address}, "protocol": port.get("protocol", "TCP"), "port": port["port"]}


# ---- policies


def _policy(random: Random, number: int) -> Object:
    kind = random.choice(
        ("CiliumNetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "NetworkPolicy")
    )
    meta: Object = {"name": f"p{number}"}
    if kind != "CiliumClusterwideNetworkPolicy":
        meta["namespace"] = random.choice(NAMESPACES)
    body: Object = {}
    if kind == "NetworkPolicy":
        version, body["spec"] = "networking.k8s.io/v1", _kubernetes(random)
    else:
        wide = kind == "CiliumClusterwideNetworkPolicy"
        version, body["spec"] = "cilium.io/v2", _cilium(random, wide)
        if random.random() < 0.15:
            body = {"specs": [_cilium(random, wide), _cilium(random, wide)]}
            if random.random() < 0.3:
                body["spec"] = _cilium(random, wide)
    return {"apiVersion": version, "kind": kind, "metadata": meta, **body}


def _cilium(random: Random, wide: bool) -> Object:
    spec: dict[str, Any] = {"endpointSelector": _subject(random, wide)}
    if wide and random.random() < 0.05:
        spec = {"nodeSelector": random.choice(({}, {"matchLabels": {"zone": "z1"}}))}
    while not any(spec.get(name) for name in ("ingress", "ingressDeny", "egress", "egressDeny")):
        for direction in ("ingress", "egress"):
            for deny in (False, True):
                pick = random.random()
                if pick < (0.5 if not deny else 0.2):
                    entries = [_entry(random, direction, wide, deny) for _ in range(random.randint(1, 3))]
                    spec[direction + ("Deny" if deny else "")] = entries
                elif pick < (0.58 if not deny else 0.24):
                    spec[direction + ("Deny" if deny else "")] = []
    if random.random() < 0.35:
        sides = {side: random.random() < 0.4 for side in ("ingress", "egress") if random.random() < 0.7}
        spec["enableDefaultDeny"] = sides
    if "nodeSelector" in spec:
        _strip_for_hosts(spec)
    return spec


def _strip_for_hosts(spec: Object) -> None:
    """A host policy carries no HTTP; the rest may stay, it says nothing about pods."""
    for direction in ("ingress", "egress"):
        for entry in spec.get(direction) or []:
            for rule in entry.get("toPorts") or []:
                rule.pop("rules", None)


def _subject(random: Random, wide: bool) -> Object:
    pick = random.random()
    if pick < 0.4:
        return {}
    if pick < 0.45 and not wide:
        return {"matchLabels": {f"k8s:{NAMESPACE_KEY}": "elsewhere", "app": random.choice(APPS)}}
    if pick < 0.5:
        return {"matchExpressions": [{"key": "reserved:init", "operator": "DoesNotExist"}]}
    return _selector(random)


def _selector(random: Random) -> Object:
    """Labels of pods in every spelling."""
    pick = random.random()
    source = random.choice(("", "", "k8s:", "any:"))
    if pick < 0.45:
        labels = {f"{source}app": random.choice(APPS)}
        if random.random() < 0.3:
            labels["tier"] = random.choice(("front", "back"))
        return {"matchLabels": labels}
    if pick < 0.55:
        return {"matchLabels": {"io.cilium.k8s.policy.serviceaccount": random.choice(("admin", "default", "robot"))}}
    if pick < 0.6:
        return {
            "matchLabels": {
                random.choice(("pod-template-hash", "app.kubernetes.io/part-of")): random.choice(("aa", "suite"))
            }
        }
    if pick < 0.63:
        return {"matchLabels": {"cni:app": "web"}}
    return {"matchExpressions": [_expression(random, source) for _ in range(random.randint(1, 2))]}


def _expression(random: Random, source: str) -> Object:
    key = random.choice(("app", "tier", "app", "absent"))
    operator = random.choice(("In", "NotIn", "Exists", "DoesNotExist"))
    made: Object = {"key": source + key, "operator": operator}
    if operator.endswith("In"):
        made["values"] = random.sample(("web", "api", "db", "front"), random.randint(1, 2))
    return made


def _peer_selector(random: Random) -> Object:
    pick = random.random()
    if pick < 0.2:
        return {}
    if pick < 0.5:
        return _selector(random)
    base = _selector(random) if random.random() < 0.5 else {}
    labels, expressions = dict(base.get("matchLabels") or {}), list(base.get("matchExpressions") or [])
    source = random.choice(("", "k8s:", "any:"))
    if pick < 0.65:
        labels[source + NAMESPACE_KEY] = random.choice(NAMESPACES)
    elif pick < 0.72:
        operator = random.choice(("Exists", "NotIn", "In", "DoesNotExist"))
        expression = {"key": source + NAMESPACE_KEY, "operator": operator}
        expressions.append(expression | ({"values": ["shop"]} if operator.endswith("In") else {}))
    elif pick < 0.82:
        labels[source + NAMESPACE_LABELS + random.choice(("env", "team", "kubernetes.io/metadata.name"))] = (
            random.choice(("prod", "dev", "red", "shop"))
        )
    elif pick < 0.88:
        labels[source + CLUSTER_KEY] = random.choice(("default", "kind-mycel", "other"))
    elif pick < 0.96:
        name = random.choice(
            ("reserved:host", "$host", "reserved:world", "reserved:remote-node", "reserved:kube-apiserver")
        )
        return {"matchLabels": {name: ""}}
    else:
        expressions.append({"key": random.choice(("reserved:init", "reserved:host")), "operator": "DoesNotExist"})
    made: Object = {}
    if labels:
        made["matchLabels"] = labels
    if expressions:
        made["matchExpressions"] = expressions
    return made


def _entry(random: Random, direction: str, wide: bool, deny: bool) -> Object:
    """One item of ingress, egress, ingressDeny or egressDeny."""
    word = "from" if direction == "ingress" else "to"
    entry: Object = {}
    pick = random.random()
    if pick < 0.35:
        entry[word + "Endpoints"] = [_peer_selector(random) for _ in range(random.randint(1, 2))]
    elif pick < 0.5:
        entry[word + "Entities"] = random.sample(ENTITIES, random.choice((1, 1, 2)))
    elif pick < 0.6:
        entry[word + "CIDR"] = random.sample(BLOCKS, random.randint(1, 2))
    elif pick < 0.72:
        entry[word + "CIDRSet"] = [_cidr_set(random) for _ in range(random.randint(1, 2))]
    elif pick < 0.76:
        kinds = ("Endpoints", "Entities", "CIDR", "CIDRSet")
        entry[word + random.choice(kinds)] = []
    elif pick < 0.77:
        entry[word + "Nodes"] = random.choice(([], [{}], [{"matchLabels": {"app": "web"}}]))
    elif pick < 0.84 and word == "to":
        entry["toServices"] = [_service_ref(random) for _ in range(random.randint(0, 2))]
    elif pick < 0.87 and word == "to" and not deny:
        entry["toFQDNs"] = random.choice(([], [{"matchName": "example.org"}], [{"matchPattern": "*.example.org"}]))
    pick = random.random()
    if pick < 0.5:
        entry["toPorts"] = [_port_rule(random, direction, deny) for _ in range(random.randint(1, 2))]
    elif pick < 0.6:
        entry["icmps"] = [{"fields": [_icmp(random) for _ in range(random.randint(0, 2))]}]
    elif pick < 0.65:
        entry[random.choice(("toPorts", "icmps"))] = []
    return entry


def _cidr_set(random: Random) -> Object:
    if random.random() < 0.2:
        return {"cidrGroupRef": random.choice((*GROUPS, "missing-group"))}
    block, *holes = random.choice(
        (
            ("0.0.0.0/0", "192.0.2.0/24"),
            ("0.0.0.0/0", "10.0.0.0/8", "192.0.2.10/32"),
            ("192.0.0.0/16", "192.0.2.0/25", "192.0.3.0/24"),
            ("192.0.2.0/24", "192.0.2.10/32"),
            ("::/0", "2001:db8:1::/48"),
            ("10.244.0.0/16", "10.244.0.0/24"),
            ("172.18.0.0/24", "172.18.0.1/32"),
        )
    )
    if random.random() < 0.3:
        return {"cidr": block}
    return {"cidr": block, "except": holes if random.random() < 0.8 else []}


def _service_ref(random: Random) -> Object:
    place = {"namespace": random.choice(NAMESPACES)} if random.random() < 0.5 else {}
    if random.random() < 0.6:
        return {"k8sService": {"serviceName": random.choice(("front", "legacy", "missing")), **place}}
    return {"k8sServiceSelector": {"selector": {"matchLabels": {"role": "public"}}, **place}}


def _port_rule(random: Random, direction: str, deny: bool) -> Object:
    pick = random.random()
    if not deny and pick < 0.3:
        port: Object = {"port": random.choice(("80", "8080", "http")), "protocol": "TCP"}
        http = [{"method": "GET", "path": "/public"}] if random.random() < 0.8 else [{}]
        return {"ports": [port], "rules": {"http": http}}
    if not deny and pick < 0.54 and direction == "egress":
        ports = [{"port": "53", "protocol": random.choice(("UDP", "TCP", "ANY"))}]
        return {"ports": ports, "rules": {"dns": [{"matchPattern": "*"}]}}
    if not deny and pick < 0.44:
        return {"ports": [{"port": "443", "protocol": "TCP"}], "serverNames": ["example.org"]}
    if pick < 0.49:
        return random.choice(({}, {"ports": []}))
    rule: Object = {"ports": [_port(random) for _ in range(random.randint(1, 2))]}
    if not deny and pick < 0.54:
        rule["rules"] = {}
    return rule


def _port(random: Random) -> Object:
    port: Object = {"port": random.choice(("80", "81", "8080", "53", "0", "http", "HTTP", "metrics", "dns", "nosuch"))}
    if random.random() < 0.3:
        first, last = random.choice(((80, 81), (79, 82), (8000, 8999), (1, 65535), (81, 80), (8080, 8080), (53, 8080)))
        port = {"port": str(first), "endPort": last}
    if random.random() < 0.8:
        port["protocol"] = random.choice(("TCP", "TCP", "UDP", "SCTP", "ANY"))
    return port


def _icmp(random: Random) -> Object:
    if random.random() < 0.5:
        field: Object = {"type": random.choice((8, 0, 13, "EchoRequest", "EchoReply"))}
        return field | ({"family": "IPv4"} if random.random() < 0.5 else {})
    return {"family": "IPv6", "type": random.choice((128, 129, "EchoRequest", "RouterAdvertisement"))}


def _kubernetes(random: Random) -> Object:
    spec: Object = {"podSelector": _kubernetes_selector(random)}
    types = random.choice((None, ["Ingress"], ["Egress"], ["Ingress", "Egress"], []))
    if types is not None:
        spec["policyTypes"] = types
    for direction in ("ingress", "egress"):
        if random.random() < 0.65:
            spec[direction] = [_kubernetes_rule(random, direction) for _ in range(random.randint(0, 3))]
    return spec


def _kubernetes_selector(random: Random) -> Object:
    if random.random() < 0.3:
        return {}
    if random.random() < 0.5:
        return {"matchLabels": {"app": random.choice(APPS)}}
    return {"matchExpressions": [_expression(random, "")]}


def _kubernetes_rule(random: Random, direction: str) -> Object:
    rule: Object = {}
    if random.random() < 0.8:
        rule["from" if direction == "ingress" else "to"] = [
            _kubernetes_peer(random) for _ in range(random.randint(0, 2))
        ]
    if random.random() < 0.6:
        rule["ports"] = [_kubernetes_port(random) for _ in range(random.randint(0, 2))]
    return rule


def _kubernetes_peer(random: Random) -> Object:
    pick = random.random()
    if pick < 0.35:
        block: Any = _cidr_set(random)
        while "cidrGroupRef" in block:
            block = _cidr_set(random)
        return {"ipBlock": block}
    peer: Object = {}
    if pick < 0.7:
        peer["podSelector"] = _kubernetes_selector(random)
    if pick > 0.55:
        key, value = random.choice((("env", "prod"), ("team", "red"), ("kubernetes.io/metadata.name", "bank")))
        peer["namespaceSelector"] = {} if random.random() < 0.3 else {"matchLabels": {key: value}}
    return peer


def _kubernetes_port(random: Random) -> Object:
    port: Object = random.choice(({"port": 80}, {"port": 8080}, {"port": "http"}, {"port": 53}, {"port": "dns"}, {}))
    port = dict(port)
    if random.random() < 0.3:
        first, last = random.choice(((80, 81), (8000, 8999), (1, 65535)))
        port = {"port": first, "endPort": last}
    if random.random() < 0.6:
        port["protocol"] = random.choice(("TCP", "UDP", "SCTP"))
    return port
