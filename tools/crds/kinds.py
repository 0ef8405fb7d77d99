"""Every kind: names, scope, versions, columns, schema."""

from __future__ import annotations

from dataclasses import dataclass

from crds.policy import rule, status
from crds.schema import (
    PORT,
    Schema,
    anything,
    array,
    boolean,
    cidr,
    conditions,
    enum,
    integer,
    mapping,
    obj,
    one_of,
    selector,
    string,
)

Column = tuple[str, str, str] | tuple[str, str, str, int]  # name, type, JSON path, priority
AGE: Column = ("Age", "date", ".metadata.creationTimestamp")
VALID: Column = ("Valid", "string", ".status.conditions[?(@.type=='Valid')].status")


@dataclass(frozen=True)
class Kind:
    """One CustomResourceDefinition. The first version is the stored one."""

    kind: str
    plural: str
    short: tuple[str, ...]
    schema: Schema
    namespaced: bool = True
    versions: tuple[str, ...] = ("v2",)
    columns: tuple[Column, ...] = (AGE,)
    categories: tuple[str, ...] = ("cilium",)
    has_status: bool = True


def root(says: str, properties: dict[str, Schema], *required: str, **more: object) -> Schema:
    common = {"apiVersion": string(), "kind": string(), "metadata": {"type": "object"}}
    return obj(common | properties, says, required=("metadata", *required), **more)


def _policy(says: str) -> Schema:
    return root(
        says,
        {"spec": rule(), "specs": array(rule(), "Several rules in one object."), "status": status()},
        anyOf=one_of("spec", "specs"),
    )


def _identity_labels() -> Schema:
    return mapping(string(), "Labels with their source: k8s:app.")


def _endpoint_status() -> Schema:
    addressing = array(obj({"ipv4": string(), "ipv6": string()}))
    policy = obj({"ingress": anything(), "egress": anything()})
    return obj(
        {
            "id": integer("The endpoint's number on its node.", format="int64"),
            "state": enum(
                "creating",
                "waiting-for-identity",
                "not-ready",
                "waiting-to-regenerate",
                "regenerating",
                "restoring",
                "ready",
                "disconnecting",
                "disconnected",
                "invalid",
            ),
            "identity": obj({"id": integer(format="int64"), "labels": array(string())}),
            "networking": obj(
                {"addressing": addressing, "node": string("The node's address.")}, required=("addressing",)
            ),
            "external-identifiers": anything(),
            "encryption": obj({"key": integer()}),
            "policy": policy,
            "named-ports": array(
                obj({"name": string(), "port": integer(), "protocol": string()}),
            ),
            "service-account": string(),
            "controllers": array(anything()),
            "health": anything(),
            "log": array(anything()),
        }
    )


def _node_spec() -> Schema:
    return obj(
        {
            "addresses": array(obj({"type": string(), "ip": string()})),
            "bootid": string(),
            "nodeidentity": integer(format="int64"),
            "health": obj({"ipv4": string(), "ipv6": string()}),
            "ingress": obj({"ipv4": string(), "ipv6": string()}),
            "encryption": obj({"key": integer()}),
            "ipam": obj({"podCIDRs": array(cidr()), "pool": mapping(anything()), "pools": anything()}),
            "instance-id": string(),
        }
    )


def _envoy_spec() -> Schema:
    port = integer(minimum=1, maximum=65535)
    frontend = obj(
        {
            "name": string(minLength=1),
            "namespace": string(),
            "listener": string("Default: the first listener of resources."),
            "ports": array(port),
        },
        required=("name",),
    )
    backend = obj(
        {"name": string(minLength=1), "namespace": string(), "number": array(string())},
        required=("name",),
    )
    return obj(
        {
            "services": array(frontend, "Services whose traffic goes to a listener."),
            "backendServices": array(backend, "Services whose endpoints the clusters use."),
            "resources": array(anything("An Envoy resource with its @type."), minItems=0),
            "nodeSelector": selector("Nodes this is for; absent: all."),
        },
        required=("resources",),
    )


def _envoy_status() -> Schema:
    node = obj(
        {
            "programmed": boolean("Whether the node's Envoy holds the object as it is now."),
            "error": string("What its Envoy refuses, in its words."),
            "observedGeneration": integer(format="int64"),
            "lastUpdated": string(format="date-time"),
        }
    )
    return obj({"conditions": conditions(), "nodes": mapping(node, "How each node stands.")})


def _pool_spec() -> Schema:
    block = obj({"cidr": cidr(), "start": string(), "stop": string()})
    return obj(
        {
            "blocks": array(block, "Ranges: a cidr, or start to stop."),
            "serviceSelector": selector("Services that may have an address of this pool."),
            "allowFirstLastIPs": enum("Yes", "No"),
            "disabled": boolean("No new addresses.", default=False),
        }
    )


def _local_redirect_spec() -> Schema:
    port = obj(
        {"name": string(), "port": string(pattern=PORT), "protocol": enum("TCP", "UDP")},
        required=("port", "protocol"),
    )
    frontend = obj(
        {
            "addressMatcher": obj({"ip": string(), "toPorts": array(port)}, required=("ip", "toPorts")),
            "serviceMatcher": obj(
                {"serviceName": string(), "namespace": string(), "toPorts": array(port)},
                required=("serviceName", "namespace"),
            ),
        },
        oneOf=one_of("addressMatcher", "serviceMatcher"),
    )
    backend = obj(
        {"localEndpointSelector": selector(), "toPorts": array(port), "overrideIP": string()},
        required=("localEndpointSelector", "toPorts"),
    )
    return obj(
        {
            "description": string(),
            "redirectFrontend": frontend,
            "redirectBackend": backend,
            "skipRedirectFromBackend": boolean(default=False),
        },
        required=("redirectFrontend", "redirectBackend"),
    )


def _egress_gateway_spec() -> Schema:
    gateway = obj({"nodeSelector": selector(), "egressIP": string(), "interface": string()}, required=("nodeSelector",))
    source = obj({"podSelector": selector(), "namespaceSelector": selector(), "nodeSelector": selector()})
    return obj(
        {
            "selectors": array(source, "Pods whose traffic leaves through the gateway."),
            "destinationCIDRs": array(cidr()),
            "excludedCIDRs": array(cidr()),
            "egressGateway": gateway,
            "egressGateways": array(gateway),
        },
        required=("destinationCIDRs", "selectors"),
    )


def _l2_spec() -> Schema:
    return obj(
        {
            "serviceSelector": selector(),
            "nodeSelector": selector(),
            "interfaces": array(string("A regular expression for names of interfaces.")),
            "externalIPs": boolean(),
            "loadBalancerIPs": boolean(),
        }
    )


_CONDITIONS = obj({"conditions": conditions()})
_ENVOY_COLUMNS: tuple[Column, ...] = (
    ("Accepted", "string", ".status.conditions[?(@.type=='Accepted')].status"),
    ("Resolved", "string", ".status.conditions[?(@.type=='ResolvedRefs')].status"),
    ("Programmed", "string", ".status.conditions[?(@.type=='Programmed')].status"),
    ("Message", "string", ".status.conditions[?(@.type=='Programmed')].message", 1),
    AGE,
)

KINDS = (
    Kind(
        "CiliumNetworkPolicy",
        "ciliumnetworkpolicies",
        ("cnp", "ciliumnp"),
        _policy("What the pods of a namespace may send and receive."),
        columns=(AGE, VALID),
        categories=("cilium", "ciliumpolicy"),
    ),
    Kind(
        "CiliumClusterwideNetworkPolicy",
        "ciliumclusterwidenetworkpolicies",
        ("ccnp",),
        _policy("What pods of all namespaces, or nodes, may send and receive."),
        namespaced=False,
        columns=(AGE, VALID),
        categories=("cilium", "ciliumpolicy"),
    ),
    Kind(
        "CiliumEndpoint",
        "ciliumendpoints",
        ("cep", "ciliumep"),
        root("A pod of the mesh, written by its node's agent.", {"status": _endpoint_status()}),
        columns=(
            ("Security Identity", "integer", ".status.identity.id"),
            ("Ingress Enforcement", "string", ".status.policy.ingress.state", 1),
            ("Egress Enforcement", "string", ".status.policy.egress.state", 1),
            ("Endpoint State", "string", ".status.state"),
            ("IPv4", "string", ".status.networking.addressing[0].ipv4"),
            ("IPv6", "string", ".status.networking.addressing[0].ipv6"),
        ),
        has_status=False,  # agents write metadata and status in one request, as Cilium's do
    ),
    Kind(
        "CiliumIdentity",
        "ciliumidentities",
        ("ciliumid",),
        root(
            "The number of a set of labels: who somebody is, on the wire and in policy.",
            {"security-labels": _identity_labels()},
            "security-labels",
        ),
        namespaced=False,
        columns=(
            ("Namespace", "string", ".metadata.labels.io\\.kubernetes\\.pod\\.namespace"),
            AGE,
        ),
        has_status=False,
    ),
    Kind(
        "CiliumNode",
        "ciliumnodes",
        ("cn", "ciliumn"),
        root("A node of the mesh, written by its agent.", {"spec": _node_spec(), "status": anything()}, "spec"),
        namespaced=False,
        columns=(
            ("CiliumInternalIP", "string", '.spec.addresses[?(@.type=="CiliumInternalIP")].ip'),
            ("InternalIP", "string", '.spec.addresses[?(@.type=="InternalIP")].ip'),
            AGE,
        ),
    ),
    Kind(
        "CiliumEnvoyConfig",
        "ciliumenvoyconfigs",
        ("cec",),
        root(
            "Envoy resources, and the services of one namespace they serve.",
            {"spec": _envoy_spec(), "status": _envoy_status()},
        ),
        columns=_ENVOY_COLUMNS,
    ),
    Kind(
        "CiliumClusterwideEnvoyConfig",
        "ciliumclusterwideenvoyconfigs",
        ("ccec",),
        root("Envoy resources, and the services they serve.", {"spec": _envoy_spec(), "status": _envoy_status()}),
        namespaced=False,
        columns=_ENVOY_COLUMNS,
    ),
    Kind(
        "CiliumExternalWorkload",
        "ciliumexternalworkloads",
        ("cew",),
        root(
            "A machine outside the cluster that takes part in the mesh.",
            {
                "spec": obj({"ipv4-alloc-cidr": string(), "ipv6-alloc-cidr": string()}),
                "status": obj({"id": integer(format="int64"), "ip": string()}),
            },
        ),
        namespaced=False,
        columns=(
            ("Cilium ID", "string", ".status.id"),
            ("IP", "string", ".status.ip"),
        ),
    ),
    Kind(
        "CiliumCIDRGroup",
        "ciliumcidrgroups",
        ("ccg",),
        root(
            "A list of address ranges that policies name.",
            {"spec": obj({"externalCIDRs": array(cidr(), minItems=0)}, required=("externalCIDRs",))},
            "spec",
        ),
        namespaced=False,
        versions=("v2", "v2alpha1"),
        has_status=False,
    ),
    Kind(
        "CiliumLoadBalancerIPPool",
        "ciliumloadbalancerippools",
        ("ippools", "ippool", "lbippool", "lbippools"),
        root(
            "Addresses for services of type LoadBalancer.",
            {"spec": _pool_spec(), "status": _CONDITIONS},
            "spec",
        ),
        namespaced=False,
        versions=("v2", "v2alpha1"),
        columns=(
            ("Disabled", "boolean", ".spec.disabled"),
            ("Conflicting", "string", '.status.conditions[?(@.type=="cilium.io/PoolConflict")].status'),
            ("IPs Available", "string", '.status.conditions[?(@.type=="cilium.io/IPsAvailable")].message'),
            AGE,
        ),
    ),
    Kind(
        "CiliumL2AnnouncementPolicy",
        "ciliuml2announcementpolicies",
        ("l2announcement",),
        root("Which nodes answer for which services' addresses.", {"spec": _l2_spec(), "status": _CONDITIONS}),
        namespaced=False,
        versions=("v2alpha1",),
    ),
    Kind(
        "CiliumLocalRedirectPolicy",
        "ciliumlocalredirectpolicies",
        ("clrp",),
        root(
            "Traffic to an address or service that stays on the node.",
            {"spec": _local_redirect_spec(), "status": obj({"ok": boolean()})},
        ),
        categories=("cilium", "ciliumpolicy"),
    ),
    Kind(
        "CiliumEgressGatewayPolicy",
        "ciliumegressgatewaypolicies",
        ("cegp",),
        root(
            "Pods whose traffic to the outside leaves through a chosen node.",
            {"spec": _egress_gateway_spec()},
        ),
        namespaced=False,
        categories=("cilium", "ciliumpolicy"),
        has_status=False,
    ),
    Kind(
        "CiliumNodeConfig",
        "ciliumnodeconfigs",
        (),
        root(
            "Settings that differ on some nodes.",
            {
                "spec": obj(
                    {"defaults": mapping(string()), "nodeSelector": selector()},
                    required=("defaults", "nodeSelector"),
                )
            },
            "spec",
        ),
        versions=("v2", "v2alpha1"),
        has_status=False,
    ),
)
