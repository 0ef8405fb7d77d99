"""What a printer is made of: columns, and functions from an object to cells."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, NamedTuple

Object = dict[str, Any]
Cells = list[Any]
NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"


class Column(NamedTuple):
    """One column; `wide` ones show with `-o wide` only."""

    name: str
    wide: bool = False
    type: str = "string"
    format: str = ""

    def definition(self) -> Object:
        """As a Table has it."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format or ("name" if self.name == "Name" else ""),
            "description": "",
            "priority": 1 if self.wide else 0,
        }


class Printer(NamedTuple):
    """Columns and the cells of one object."""

    columns: tuple[Column, ...]
    cells: Callable[[Object], Cells]


def columns(*names: str) -> tuple[Column, ...]:
    """Columns from names; a leading `+` marks a wide one, a trailing `#` an integer."""
    made: list[Column] = []
    for name in names:
        wide, integer = name.startswith("+"), name.endswith("#")
        made.append(Column(name.strip("+#"), wide, "integer" if integer else "string"))
    return tuple(made)


def parse_time(text: Any) -> datetime.datetime | None:
    """A metadata time; None when there is none."""
    if not isinstance(text, str) or not text:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def age(text: Any) -> str:
    """How long ago, as kubectl shows it; `<unknown>` without a time."""
    moment = parse_time(text)
    if moment is None:
        return UNKNOWN
    return duration((datetime.datetime.now(datetime.UTC) - moment).total_seconds())


def age_of(obj: Object) -> str:
    """Age of an object."""
    return age(obj["metadata"].get("creationTimestamp"))


def duration(seconds_exact: float) -> str:
    """`5s`, `3m10s`, `45m`, `5h12m`, `3d4h`, `45d`, `2y30d`: two units while the first is small."""
    seconds = int(seconds_exact)
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        rest = seconds % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = seconds // 3600
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        rest = hours % 24
        return f"{days}d{rest}h" if rest else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    years, rest = divmod(days, 365)
    if years < 8 and rest:
        return f"{years}y{rest}d"
    return f"{years}y"


def selector_text(selector: Object | None) -> str:
    """A label selector in one line."""
    if not selector:
        return NONE
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for item in selector.get("matchExpressions") or ():
        key, values = item.get("key", ""), ",".join(item.get("values") or ())
        match item.get("operator"):
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case _:
                parts.append("!" + key)
    return ",".join(parts) or NONE


def labels_text(labels: Object | None) -> str:
    """`a=b,c=d`, `<none>` without any."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def containers_of(obj: Object) -> tuple[str, str]:
    """(names, images) of a template's containers."""
    spec = ((obj.get("spec") or {}).get("template") or {}).get("spec") or {}
    found = spec.get("containers") or ()
    return ",".join(str(c.get("name", "")) for c in found), ",".join(str(c.get("image", "")) for c in found)
