"""Resource quantities as integers: milli-units for cpu, whole units for all else. Pure."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from mycel.cluster.controllers.objects import Obj

_SUFFIX: Mapping[str, Decimal] = {
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
    "m": Decimal("0.001"),
    "u": Decimal("0.000001"),
    "n": Decimal("0.000000001"),
}


@functools.lru_cache(maxsize=4096)
def parse_quantity(text: str) -> Decimal:
    """A Kubernetes quantity such as `250m`, `1.5Gi` or `1e3`; raises ValueError."""
    number, suffix = text, ""
    for length in (2, 1):
        if text[-length:] in _SUFFIX and len(text) > length:
            number, suffix = text[:-length], text[-length:]
            break
    try:
        return Decimal(number) * _SUFFIX[suffix]
    except InvalidOperation as exc:
        raise ValueError(f"{text!r} is not a quantity") from exc


def amounts(listed: Mapping[str, Any] | None) -> dict[str, int]:
    """A resource list as integers, rounded up; cpu in thousandths."""
    return {
        resource: math.ceil(parse_quantity(str(value)) * (1000 if resource == "cpu" else 1))
        for resource, value in (listed or {}).items()
    }


def pod_requests(pod_spec: Obj) -> dict[str, int]:
    """What a pod asks of a node: its containers and sidecars together, or its biggest init container; plus
    overhead.

    The rule of KEP-753: an init container runs beside the sidecars started before it.
    """
    running: dict[str, int] = {}
    for container in pod_spec.get("containers") or ():
        _add(running, _requests(container))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for init in pod_spec.get("initContainers") or ():
        if init.get("restartPolicy") == "Always":
            _add(sidecars, _requests(init))
            _raise_to(peak, sidecars)
        else:
            together = dict(sidecars)
            _add(together, _requests(init))
            _raise_to(peak, together)
    _add(running, sidecars)
    _raise_to(running, peak)
    _add(running, amounts(pod_spec.get("overhead")))
    return running


def _requests(container: Obj) -> dict[str, int]:
    resources = container.get("resources") or {}
    return amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for resource, amount in more.items():
        total[resource] = total.get(resource, 0) + amount


def _raise_to(total: dict[str, int], floor: Mapping[str, int]) -> None:
    for resource, amount in floor.items():
        total[resource] = max(total.get(resource, 0), amount)
