"""The schema of a policy rule: one for CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy alike."""

from __future__ import annotations

from typing import Any

from crds.schema import (
    NAME,
    PORT_OR_NAME,
    Schema,
    anything,
    array,
    boolean,
    cidr,
    conditions,
    enum,
    int_or_string,
    integer,
    mapping,
    obj,
    one_of,
    selector,
    string,
)

ENTITIES = (
    "all",
    "cluster",
    "cluster-mesh",
    "health",
    "host",
    "ingress",
    "init",
    "kube-apiserver",
    "none",
    "remote-node",
    "unmanaged",
    "world",
    "world-ipv4",
    "world-ipv6",
)
PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP", "ICMPv6", "VRRP", "IGMP", "ANY")
FQDN = r"^[-a-zA-Z0-9_]+(\.[-a-zA-Z0-9_]+)*\.?$"
FQDN_PATTERN = r"^[-a-zA-Z0-9_*]+(\.[-a-zA-Z0-9_*]+)*\.?$"


def status() -> Schema:
    node = obj(
        {
            "ok": boolean(),
            "enforcing": boolean("Whether the node's kernel has been read back with it."),
            "error": string(),
            "localPolicyRevision": integer("The revision of the node's policy from which on it is enforced."),
            "observedGeneration": integer(),
            "lastUpdated": string(format="date-time"),
        }
    )
    return obj({"conditions": conditions(), "derivativePolicies": mapping(anything()), "nodes": mapping(node)})


def rule() -> Schema:
    """`spec`, and each item of `specs`."""
    return obj(
        {
            "description": string("For people; nothing is decided by it."),
            "endpointSelector": selector("The pods this rule is about. {} is every pod of the namespace."),
            "nodeSelector": selector("The nodes this rule is about (clusterwide policies only)."),
            "ingress": array(_peers("from", deny=False), "What may come in. Absent and [] differ: see docs."),
            "ingressDeny": array(_peers("from", deny=True), "What may not come in, whatever else allows it."),
            "egress": array(_peers("to", deny=False), "What may go out."),
            "egressDeny": array(_peers("to", deny=True), "What may not go out, whatever else allows it."),
            "enableDefaultDeny": obj(
                {"ingress": boolean(), "egress": boolean()},
                "Whether what no rule allows is denied. Default: in each direction the rule has entries for.",
            ),
            "labels": array(obj({"key": string(), "value": string(), "source": string()}, required=("key",))),
            "log": obj({"value": string()}, "A word added to the flows this rule decides."),
        },
        anyOf=one_of("ingress", "ingressDeny", "egress", "egressDeny"),
        oneOf=one_of("endpointSelector", "nodeSelector"),
    )


def _peers(way: str, *, deny: bool) -> Schema:
    """One entry of a direction: peers (one kind of them) AND ports."""
    fields: dict[str, Schema] = {
        f"{way}Endpoints": array(selector(), "Pods. [] selects nothing, [{}] every pod in scope."),
        f"{way}Requires": array(selector(), "No longer supported.", maxItems=0),
        f"{way}CIDR": array(cidr(), "Addresses outside the cluster."),
        f"{way}CIDRSet": array(_cidr_rule(), "The same, with exceptions or by reference."),
        f"{way}Entities": array(enum(*ENTITIES), "Peers with a name of their own."),
        f"{way}Groups": array(anything(), "Groups of a cloud provider."),
        f"{way}Nodes": array(selector(), "Nodes, by their labels."),
        "toPorts": array(_ports(deny=deny), maxItems=40),
        "icmps": array(obj({"fields": array(_icmp(), maxItems=40)})),
    }
    if way == "to":
        fields["toServices"] = array(_service())
        if not deny:
            fields["toFQDNs"] = array(_fqdn(), "Names; their addresses are learnt from DNS answers.")
    if not deny:
        fields["authentication"] = obj({"mode": enum("disabled", "required", "test-always-fail")}, required=("mode",))
    return obj(fields)


def _cidr_rule() -> Schema:
    return obj(
        {
            "cidr": cidr(),
            "cidrGroupRef": string("A CiliumCIDRGroup, by name.", maxLength=253, pattern=NAME),
            "cidrGroupSelector": selector("CiliumCIDRGroups, by labels."),
            "except": array(cidr(), "Parts of it that are left out."),
        },
        oneOf=one_of("cidr", "cidrGroupRef", "cidrGroupSelector"),
    )


def _fqdn() -> Schema:
    return obj(
        {
            "matchName": string(maxLength=255, pattern=FQDN),
            "matchPattern": string("* is any run of characters of a label.", maxLength=255, pattern=FQDN_PATTERN),
        },
        oneOf=one_of("matchName", "matchPattern"),
    )


def _service() -> Schema:
    return obj(
        {
            "k8sService": obj({"serviceName": string(), "namespace": string()}),
            "k8sServiceSelector": obj({"selector": selector(), "namespace": string()}, required=("selector",)),
        }
    )


def _icmp() -> Schema:
    return obj(
        {
            "family": enum("IPv4", "IPv6", default="IPv4"),
            "type": int_or_string("A number up to 255, or a name as EchoRequest."),
        },
        required=("type",),
    )


def _ports(*, deny: bool) -> Schema:
    port = obj(
        {
            "port": string(
                "A number or the name of a container port; 0 is every port.",
                maxLength=63,
                pattern=PORT_OR_NAME,
            ),
            "endPort": integer("The last port of a range.", minimum=0, maximum=65535, format="int32"),
            "protocol": enum(*PROTOCOLS),
        },
    )
    fields: dict[str, Schema] = {"ports": array(port, maxItems=40)}
    if not deny:
        secret = obj({"name": string(), "namespace": string()}, required=("name",))
        tls = obj(
            {"secret": secret, "trustedCA": string(), "certificate": string(), "privateKey": string()},
            required=("secret",),
        )
        fields |= {
            "rules": _l7(),
            "serverNames": array(string(minLength=1), "TLS server names that may be asked for.", minItems=1),
            "listener": obj(
                {
                    "envoyConfig": obj(
                        {
                            "kind": enum("CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"),
                            "name": string(minLength=1),
                        },
                        required=("name",),
                    ),
                    "name": string(minLength=1),
                    "priority": integer(minimum=1, maximum=100),
                },
                required=("envoyConfig", "name"),
            ),
            "terminatingTLS": tls,
            "originatingTLS": tls,
        }
    return obj(fields)


def _l7() -> Schema:
    secret = obj({"name": string(), "namespace": string()}, required=("name",))
    header = obj(
        {
            "name": string(minLength=1),
            "value": string(),
            "secret": secret,
            "mismatch": enum("LOG", "ADD", "DELETE", "REPLACE"),
        },
        required=("name",),
    )
    http: dict[str, Any] = {
        "method": string("A regular expression for the whole method."),
        "path": string("A regular expression for the whole path, with the query."),
        "host": string("A regular expression for the whole host.", format="idn-hostname"),
        "headers": array(string(), "Headers that must be there: `name: value`."),
        "headerMatches": array(header),
    }
    dns = obj(
        {
            "matchName": string(maxLength=255, pattern=FQDN),
            "matchPattern": string(maxLength=255, pattern=FQDN_PATTERN),
        },
        oneOf=one_of("matchName", "matchPattern"),
    )
    return obj(
        {
            "http": array(obj(http), "Requests. [] is every one."),
            "dns": array(dns, "Names that may be asked for."),
        },
        "What the node's proxy checks. One protocol per entry.",
    )
