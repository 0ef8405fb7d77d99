"""What policies mean by services and CIDR groups, from the API server to what the engine resolves by."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

from mycel.agent.watches import Watches, follow
from mycel.k8s.informer import Key
from mycel.model.address import Address, parse_address
from mycel.model.service import EndpointSlice, Service, ServiceRef
from mycel.policy.engine import Engine
from mycel.policy.errors import PolicyInvalid
from mycel.policy.parse import parse_cidr_group
from mycel.policy.resolve import Resolution, ServiceFacts

log = logging.getLogger(__name__)


class Referents:
    """Fills `resolution`. Many changes are resolved as one, by `resolve_again`."""

    def __init__(self, engine: Engine, resolution: Resolution, watches: Watches, *, touch: Callable[[], None]) -> None:
        """`touch` is called when policies may mean others."""
        self._engine = engine
        self._resolution = resolution
        self._touch = touch
        self._slices: defaultdict[ServiceRef, dict[Key, EndpointSlice]] = defaultdict(dict)
        self._stale = False
        follow(watches.services, self._service_changed)
        follow(watches.slices, self._slice_changed)
        follow(watches.cidr_groups, self._group_changed)

    @property
    def apiservers(self) -> Collection[Address]:
        """See Resolution."""
        return self._resolution.apiservers

    def resolve_again(self) -> bool:
        """Before a plan. True when a policy means others than before."""
        stale, self._stale = self._stale, False
        return stale and self._engine.resolve_again()

    def _service_changed(self, key: Key, _old: Service | None, new: Service | None) -> None:
        place = (key.namespace, key.name)
        self._resolution.services.pop(place, None)
        if new is not None:
            self._resolution.services[place] = ServiceFacts(*place, new.labels, new.selector)
        self._changed()

    def _slice_changed(self, key: Key, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if old is not None:
            self._slices[old.ref].pop(key, None)
        if new is not None:
            self._slices[new.ref][key] = new
        for ref in {each.ref for each in (old, new) if each is not None}:
            self._resolution.addresses[ref.namespace, ref.name] = [
                parse_address(endpoint.address) for each in self._slices[ref].values() for endpoint in each.endpoints
            ]
        self._changed()

    def _group_changed(self, key: Key, _old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        self._resolution.groups.pop(key.name, None)
        if new is not None:
            labels = {str(name): str(value) for name, value in (new["metadata"].get("labels") or {}).items()}
            try:
                self._resolution.groups[key.name] = (labels, parse_cidr_group(new))
            except PolicyInvalid as exc:
                log.warning("CiliumCIDRGroup %s is not valid, so it stands for nothing: %s", key.name, exc)
        self._changed()

    def _changed(self) -> None:
        if self._engine.needs_resolving:
            self._stale = True
            self._touch()
