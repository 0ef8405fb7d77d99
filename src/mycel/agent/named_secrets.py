"""The Secrets that policies in force name, by object."""

from __future__ import annotations

from collections.abc import Iterable

from mycel.policy.engine import PolicyKeyRef
from mycel.policy.http import SecretRef, secrets_of
from mycel.policy.rules import Policy


class NamedSecrets:
    """Kept as policies come and go, so that nobody has to go through all of them."""

    def __init__(self) -> None:
        self._named: dict[PolicyKeyRef, frozenset[SecretRef]] = {}

    def note(self, key: PolicyKeyRef, policies: Iterable[Policy]) -> None:
        """What an object says now."""
        self._named.pop(key, None)
        if named := secrets_of(rule.l7 for policy in policies for side in policy.sides for rule in side.rules):
            self._named[key] = named

    def of(self, key: PolicyKeyRef) -> frozenset[SecretRef]:
        """Those an object names."""
        return self._named.get(key, frozenset())

    def all(self) -> frozenset[SecretRef]:
        """Those any object names."""
        return frozenset().union(*self._named.values())
