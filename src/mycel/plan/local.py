"""Rows of one node's own pods, kept from plan to plan: a plan makes only those that changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mycel.abi import EndpointKey, EndpointValue, InterfaceKey
from mycel.model.workload import EndpointId, LocalEndpoint
from mycel.plan import rows
from mycel.plan.rows import EndpointPolicies, EndpointPolicy, ThisNode


class _Made(NamedTuple):
    """A pod's row, and of what it was made."""

    endpoint: LocalEndpoint
    policy: EndpointPolicy | None
    value: EndpointValue


class LocalRows:
    """`endpoints` and `interfaces` are never changed in place, and stay the objects they are when nothing changes."""

    def __init__(self) -> None:
        self.endpoints: Mapping[EndpointKey, EndpointValue] = {}
        self.interfaces: Mapping[InterfaceKey, EndpointValue] = {}
        self._node: ThisNode | None = None
        self._made: dict[EndpointId, _Made] = {}
        self._distinct = False  # no two rows have one key, so that a row may be replaced alone

    def update(self, node: ThisNode, local: Iterable[LocalEndpoint], policies: EndpointPolicies | None = None) -> None:
        """Bring the rows to what this node's pods are and enforce; `policies` as for `rows.endpoint_value`."""
        before, self._made = self._made, {}
        changed: list[_Made] = []
        moved = node != self._node
        for each in local:
            policy = rows.policy_of(each, policies)
            known = before.get(each.endpoint_id)
            if known is None or known.endpoint is not each or known.policy != policy:
                moved = moved or known is None or _places(known.endpoint) != _places(each)
                known = _Made(each, policy, rows.endpoint_value(each, policy))
                changed.append(known)
            self._made[each.endpoint_id] = known
        if moved or not self._distinct or len(before) != len(self._made):
            self._make_all(node)
        elif changed:
            values = [(made.endpoint, made.value) for made in changed]
            self.endpoints = {**self.endpoints, **rows.pod_rows(values)}
            self.interfaces = {**self.interfaces, **rows.interface_rows(values)}

    def _make_all(self, node: ThisNode) -> None:
        values = [(made.endpoint, made.value) for made in self._made.values()]
        self.endpoints, self.interfaces = rows.endpoint_rows(node, values), rows.interface_rows(values)
        keys = sum(len(endpoint.addresses) for endpoint, _ in values) + len(rows.endpoint_rows(node, ()))
        self._distinct = len(self.endpoints) == keys and len(self.interfaces) == len(values)
        self._node = node


def _places(endpoint: LocalEndpoint) -> tuple[object, ...]:
    return endpoint.ifindex, endpoint.addresses
