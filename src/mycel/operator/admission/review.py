"""What is said of an object that is about to be written: by the same readers that serve it later. Pure.

Only what is wrong in the object itself is a reason to refuse; what the cluster lacks is told by status conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mycel.envoy.config.read import read
from mycel.operator.loadbalancer.pools import parse_pool
from mycel.policy.errors import PolicyInvalid
from mycel.policy.parse import parse_cidr_group, parse_policy

Object = Mapping[str, Any]


def _pool(item: Object) -> None:
    problem = parse_pool(item).problem
    if problem:
        raise PolicyInvalid("", problem)


READERS: dict[str, Callable[[Object], object]] = {
    "CiliumNetworkPolicy": parse_policy,
    "CiliumClusterwideNetworkPolicy": parse_policy,
    "NetworkPolicy": parse_policy,
    "CiliumCIDRGroup": parse_cidr_group,
    "CiliumEnvoyConfig": read,
    "CiliumClusterwideEnvoyConfig": read,
    "CiliumLoadBalancerIPPool": _pool,
}


def problem_of(item: Object) -> str | None:
    """Object, field and what is wrong; None: it may be written, also when its kind has no reader."""
    reader = READERS.get(str(item.get("kind")))
    if reader is None:
        return None
    try:
        reader(item)
    except PolicyInvalid as wrong:
        metadata = item["metadata"]
        place = "/".join(str(part) for part in (metadata.get("namespace"), metadata["name"]) if part)
        return f"{item['kind']} {place}: {wrong}"
    return None
