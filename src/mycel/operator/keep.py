"""Targets that an informer sees: what others do to them is mended at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

from mycel.k8s.informer import Informer
from mycel.kit.latest import Latest
from mycel.kit.reconcile import Report, Target, reconcile

K = TypeVar("K")
V = TypeVar("V")


def keep(
    group: asyncio.TaskGroup,
    desired: Latest[Mapping[K, V]],
    target: Target[K, V],
    report: Report,
    *,
    seen_by: Informer[Any],
) -> None:
    """Reconcile in a task of the group."""
    disturbed = asyncio.Event()
    seen_by.subscribe(lambda _key, _old, _new: disturbed.set())
    group.create_task(reconcile(desired, target, report, disturbed=disturbed), name=target.name)
