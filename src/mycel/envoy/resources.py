"""What an xDS client is to hold: resources by type and name, and the order in which types change.

A snapshot comes from the plan and goes to every stream (`delta`). Pure: no message classes, no I/O; a resource's body
is its message, serialised deterministically, so that equal content has an equal version whoever built it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple, NewType

TypeUrl = NewType("TypeUrl", str)
Version = NewType("Version", str)

_PREFIX = "type.googleapis.com/"
SECRET = TypeUrl(_PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret")
CLUSTER = TypeUrl(_PREFIX + "envoy.config.cluster.v3.Cluster")
ENDPOINTS = TypeUrl(_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment")
LISTENER = TypeUrl(_PREFIX + "envoy.config.listener.v3.Listener")
ROUTES = TypeUrl(_PREFIX + "envoy.config.route.v3.RouteConfiguration")

# What is pointed at comes before what points at it, and goes after it. Endpoints go last: without their cluster
# a client gives them up by itself, and a cluster never stands without them
# (xDS protocol, "Eventual consistency considerations").
MAKE_ORDER = (SECRET, CLUSTER, ENDPOINTS, LISTENER, ROUTES)
# Envoy answers for clusters only when they are warm, which they are by their endpoints and secrets: these do not wait.
TOGETHER = frozenset({SECRET, CLUSTER, ENDPOINTS})
BREAK_ORDER = (LISTENER, ROUTES, CLUSTER, ENDPOINTS, SECRET)

# Types of which a first request without names asks for all
# (xDS protocol, "How the client specifies what resources to return").
WILDCARD_TYPES = frozenset({CLUSTER, LISTENER})


class Resource(NamedTuple):
    """One resource as it is sent: a version that is a digest of the body, so that equal means equal across restarts."""

    version: Version
    body: bytes


Snapshot = Mapping[TypeUrl, Mapping[str, Resource]]


def resource(body: bytes) -> Resource:
    """Make a resource of a deterministically serialised message."""
    return Resource(Version(hashlib.blake2b(body, digest_size=12).hexdigest()), body)


def merged(*parts: Snapshot) -> dict[TypeUrl, dict[str, Resource]]:
    """Several makers' resources in one snapshot; of two with one name the earlier part's counts."""
    found: dict[TypeUrl, dict[str, Resource]] = {}
    for part in reversed(parts):
        for kind, by_name in part.items():
            found.setdefault(kind, {}).update(by_name)
    return found
