"""Seeded bugs of the policy compiler: lines of it, and what a tired engineer might have written instead.

Each is applied to a copy; the comparison with the model must see it. `old` has to be in the copied rooms exactly once,
in whichever module: when the compiler changes there, the bug is written anew. `because` names a published failure of
the same kind.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One bug: `edits` are (old text, new text)."""

    name: str
    edits: tuple[tuple[str, str], ...]
    because: str = ""


def _bug(name: str, old: str, new: str, because: str = "") -> Mutation:
    return Mutation(name, ((old, new),), because)


PUBLISHED = (
    _bug(
        "an empty list of peers is read as any",
        "for name, peers in (said | loose).items() if peers is not None}",
        "for name, peers in (said | loose).items() if peers}",
        "CVE-2025-64715",
    ),
    _bug(
        "a plain allow of a range hides the L7 rule of one port",
        "if sections == {None}:",
        "if None in sections:",
        "CVE-2024-52529",
    ),
    _bug(
        "a narrower prefix inherits no broader one's rules",
        "if length <= network.length:",
        "if length == network.length:",
        "CVE-2024-47825",
    ),
    _bug(
        "rules of one peer serve another",
        "found = self._templates.get(memo)",
        "found = next((rows for key, rows in self._templates.items() if named and key[0]), None)",
        "CVE-2023-30851",
    ),
    _bug(
        "with a cluster name an ipBlock becomes every pod",
        "            return Block(outer,",
        "            if self._cluster != 'default':\n"
        "                return Labelled(Selector((IS_POD, in_cluster(self._cluster))))\n"
        "            return Block(outer,",
        "CVE-2026-56743",
    ),
    _bug(
        "nodes are pods of the same labels",
        'return Names((f"nodes {field.path}",))',
        "return Labelled(selector(field))",
        "CVE-2025-30163",
    ),
    _bug(
        "a subject that names a reserved label leaves its namespace",
        "return selector(field).requiring(in_namespace(scope.namespace))",
        "found = selector(field)\n"
        "    return found if found.mentions_reserved else found.requiring(in_namespace(scope.namespace))",
        "CVE-2023-41333",
    ),
    _bug(
        "pods may carry labels that state facts",
        "for key, value in pod_labels.items() if not key.startswith(_RESERVED_PREFIXES)}",
        "for key, value in pod_labels.items()}",
        "CVE-2023-39347",
    ),
    _bug(
        "the more specific row wins before denials do",
        "return named if named.deny else anybody",
        "return named",
        "CVE-2024-42487: precedence by the wrong order",
    ),
    _bug(
        "patterns are found anywhere in a name",
        "match = rule.pattern.match(key)",
        "match = rule.pattern.search(key)",
        "Istio 1.29.3: patterns wider than meant",
    ),
    _bug(
        "an ipBlock is never about pods",
        'if "pods" in cidr_modes else (Block,)',
        'if "pods" in cidr_modes else ()',
        "Kubernetes e2e: ipBlock naming pod IPs",
    ),
    _bug(
        "exceptions of a CIDR do not count",
        "return self.network.contains(network) and not any(each.contains(network) for each in self.excepts)",
        "return self.network.contains(network)",
        "Kubernetes e2e: CIDR and except overlap",
    ),
    _bug("SCTP is TCP", '"SCTP": SCTP,', '"SCTP": TCP,', "Kubernetes e2e: SCTP only"),
)

PEERS = (
    _bug(
        "CIDR rules are about pods",
        'if "pods" in cidr_modes else (Block,)',
        'if "pods" in cidr_modes else (Block, Cidr)',
    ),
    _bug(
        "::/0 covers IPv4",
        "if self.network.is_ipv4 != network.is_ipv4:",
        "if False:",
    ),
    _bug(
        "an empty peer selector is every namespace",
        "return (in_namespace(self._namespace),)",
        "return (IS_POD,)",
    ),
    Mutation(
        "an empty clusterwide peer selector is the world, too",
        (
            ("return (IS_POD,) if self._clusterwide_pods else ()", "return ()"),
            (
                "return () if chosen.mentions(CLUSTER_KEY) else (in_cluster(self._cluster),)",
                "return () if chosen.mentions(CLUSTER_KEY) or not self._namespace else (in_cluster(self._cluster),)",
            ),
        ),
    ),
    _bug(
        "a namespace's label does not lift the namespace",
        "return self.mentions(NAMESPACE_KEY) or any(",
        "return self.mentions(NAMESPACE_KEY) or False and any(",
    ),
    _bug("a reserved peer is narrowed to pods", "        if chosen.mentions_reserved:", "        if False:"),
    _bug("cluster leaves the host out", '_CLUSTER_ENTITY = ("host", ', "_CLUSTER_ENTITY = ("),
    _bug(
        "none is everybody",
        'case "none":\n                return ()',
        'case "none":\n                return (Everyone(),)',
    ),
    _bug("prefixes are not of the world", 'return "reserved:world=", f"', 'return "reserved:outside=", f"'),
    _bug(
        "an API server outside is nothing but an address",
        'also = ("reserved:kube-apiserver=",) if network in self._apiservers else ()',
        "also = ()",
    ),
    _bug(
        "an API server outside has no identity unless policies name its address",
        "self.replace(old - new, new - old)",
        "",
    ),
    _bug(
        "families of the world are mixed up",
        "{'ipv4' if network.is_ipv4 else 'ipv6'}",
        "{'ipv6' if network.is_ipv4 else 'ipv4'}",
    ),
    _bug(
        "no services are nobody",
        'entry["toServices"].list_of(self._service) or None',
        'entry["toServices"].list_of(self._service)',
    ),
    _bug("a service without selector is its whole namespace", "if service.selector:", "if True:"),
    _bug(
        "a service is of any namespace",
        'named["namespace"].text("") or self._namespace',
        'named["namespace"].text("")',
    ),
    _bug("every CIDR group is meant", "if selector else group == name)", "if selector else True)"),
    _bug(
        "NotIn wants the key",
        "return not any(value in self.values for _, value in found)",
        "return bool(found) and not any(value in self.values for _, value in found)",
    ),
    _bug("sources of labels do not matter", "if self.source != ANY_SOURCE:", "if False:"),
    _bug("an empty from of Kubernetes is nobody", "in entry[way].items()) or None", "in entry[way].items())"),
)

DEFAULTS = (
    _bug(
        "an entry without peers and ports allows everything",
        "and not (peers is None and matches is None)",
        "and True",
    ),
    _bug("default deny needs every policy", "default_deny=always or any(", "default_deny=always or all("),
    _bug(
        "denials do not switch default deny on",
        "DirectionRules(True if default is None else default,",
        "DirectionRules(bool(allow) if default is None else default,",
    ),
    _bug(
        "enableDefaultDeny is ignored",
        "DirectionRules(True if default is None else default,",
        "DirectionRules(True,",
    ),
    _bug("enableDefaultDeny needs entries", "if not (allow or deny or default):", "if not (allow or deny):"),
    _bug(
        "an empty egress isolates",
        'if spec["egress"].value else ("Ingress",)',
        'if spec["egress"].value is not None else ("Ingress",)',
    ),
    _bug(
        "rules of a type that is not listed count",
        'if "Egress" in types else None',
        'if egress or "Egress" in types else None',
    ),
    _bug("only the first of spec and specs counts", "for section in sections)", "for section in sections[:1])"),
    _bug(
        "policies of nodes select pods",
        "        for held in new:\n            if not held.policy.of_nodes:",
        "        for held in new:\n            if True:",
    ),
    _bug("the node is judged like others", 'return self._reserved("host")', "return False"),
    _bug(
        "other nodes enter like the own one",
        'return self._reserved("host")',
        'return self._reserved("host") or self._reserved("remote-node")',
    ),
    _bug("denials do not stop the node", "found.reason is not Reason.DENY_RULE and self._is_host", "self._is_host"),
)

PORT_BUGS = (
    _bug("ANY is TCP and UDP", '_TRANSPORTS if said == "ANY"', '(TCP, UDP) if said == "ANY"'),
    _bug(
        "ANY opens ICMP",
        "return [_numbers(protocol, first, end or 0) for protocol in protocols]",
        "return [_numbers(each, first, end or 0) for each in protocols]"
        " + [PortMatch(ICMP)] * (said == 'ANY' and not first)",
    ),
    _bug(
        "ranges end one early",
        "else PortMatch(protocol, first, last)\n",
        "else PortMatch(protocol, first, max(first, last - 1))\n",
    ),
    _bug(
        "ranges are cut one too wide",
        "first + (1 << (17 - bits)) - 1 <= match.last:",
        "first + (1 << (17 - bits)) - 1 <= match.last + 1:",
    ),
    _bug("names of ports are case-sensitive", "name=text.lower()) for", "name=text) for"),
    _bug(
        "a named port is of any protocol",
        "if (each.name, each.protocol) == (match.name, match.protocol):",
        "if each.name == match.name:",
    ),
    _bug("an unknown name is every port", "if not match.name:", "if not match.name or not named_ports:"),
    _bug(
        "names mean nothing in rules for anybody",
        "self._everybody_named.append(index)",
        "pass",
    ),
    _bug(
        "pods share the ports of their policy's first pod",
        "            ports = party.named_ports\n",
        "            ports = ()\n",
    ),
    _bug(
        "a narrower port forgets what broader rules say",
        "covering += said.get(each, ())",
        "covering += said.get(each, ()) if each.length == prefix.length else ()",
    ),
    _bug(
        "no ports are all ports",
        "return tuple(match for item in items",
        "return None if not items else tuple(match for item in items",
    ),
    _bug(
        "ICMP type 0 is every type",
        "PortMatch(ICMPV6 if six else ICMP, number, number)",
        "PortMatch(ICMPV6 if six else ICMP, number, number or 65535)",
    ),
    _bug("ICMP without family is IPv6", 'default="IPv4") == "IPv6"', 'default="IPv6") == "IPv6"'),
    _bug(
        "the shortest prefix wins",
        "key.prefixlen for key in rows}, reverse=True)",
        "key.prefixlen for key in rows})",
    ),
    _bug("a port for the proxy is simply open", "self._proxies(row.l7) if row.l7 else 0", "0"),
    _bug(
        "without default deny L7 is forgotten",
        "sections.add(None)  # nothing",
        "sections = set()  # nothing",
    ),
    _bug("names of servers need no proxy", "if servers or tls:", "if tls:"),
)

SERVICE_BUGS = (
    _bug(
        "any backend speaks for all",
        "chosen = min(found, key=lambda each: _STRICTEST.index(each.outcome))",
        "chosen = found[0]",
    ),
    _bug("a flow to a service is judged on the service's port", "port=each.port, service=", "port=flow.port, service="),
    _bug("backends need not be ready", "for address, ready in ends if ready]", "for address, _ in ends]"),
)

MUTATIONS = (*PUBLISHED, *PEERS, *DEFAULTS, *PORT_BUGS, *SERVICE_BUGS)
