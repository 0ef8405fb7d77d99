"""Times as Hubble's command line reads and prints them: Go's layouts, always in UTC."""

import re
import time
from datetime import UTC, datetime, timedelta, timezone

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_DATE = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:T(?P<hour>\d{2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d{1,9}))?)?)?"
    r"(?P<zone>Z|[+-]\d{2}:\d{2}))?"
)
_RFC1123Z = re.compile(
    r"[A-Z][a-z]{2}, (?P<day>\d{2}) (?P<month>[A-Z][a-z]{2}) (?P<year>\d{4}) "
    r"(?P<clock>\d{2}:\d{2}:\d{2}) (?P<zone>[+-]\d{4})"
)
_SECOND_NS = 1_000_000_000


def format_time(wall_ns: int, layout: str = "StampMilli") -> str:
    """A wall clock time in UTC. An unknown layout is StampMilli, as in the stock client."""
    seconds, nanos = divmod(wall_ns, _SECOND_NS)
    at = time.gmtime(seconds)
    date = f"{at.tm_year:04d}-{at.tm_mon:02d}-{at.tm_mday:02d}"
    minute = f"{at.tm_hour:02d}:{at.tm_min:02d}"
    match layout.lower():
        case "yearmonthday":
            return date
        case "yearmonthdayhour":
            return f"{date}T{at.tm_hour:02d}Z"
        case "yearmonthdayhourminute":
            return f"{date}T{minute}Z"
        case "rfc3339":
            return f"{date}T{minute}:{at.tm_sec:02d}Z"
        case "rfc3339milli":
            return f"{date}T{minute}:{at.tm_sec:02d}{_fraction(nanos, 3)}Z"
        case "rfc3339micro":
            return f"{date}T{minute}:{at.tm_sec:02d}{_fraction(nanos, 6)}Z"
        case "rfc3339nano":
            return f"{date}T{minute}:{at.tm_sec:02d}{_fraction(nanos, 9)}Z"
        case "rfc1123z":
            day = f"{_DAYS[at.tm_wday]}, {at.tm_mday:02d} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04d}"
            return f"{day} {minute}:{at.tm_sec:02d} +0000"
        case _:
            millis = nanos // 1_000_000
            return f"{_MONTHS[at.tm_mon - 1]} {at.tm_mday:2d} {minute}:{at.tm_sec:02d}.{millis:03d}"


def _fraction(nanos: int, digits: int) -> str:
    text = f"{nanos:09d}"[:digits].rstrip("0")
    return f".{text}" if text else ""


def parse_duration_ns(text: str) -> int | None:
    """`1h30m`, `500ms`, `-3s`, `0` in nanoseconds; None when it is no duration."""
    sign, rest = (-1 if text.startswith("-") else 1), text.lstrip("+-")
    if rest == "0":
        return 0
    total, place = 0.0, 0
    for part in _DURATION_PART.finditer(rest):
        if part.start() != place:
            return None
        total += float(part[1]) * _UNITS_NS[part[2]]
        place = part.end()
    return sign * int(total) if place == len(rest) and rest else None


def parse_time_ns(text: str, *, now_ns: int) -> int:
    """A duration into the past, or a date, as wall clock nanoseconds. Raises ValueError."""
    duration_ns = parse_duration_ns(text)
    if duration_ns is not None:
        return now_ns - duration_ns
    if (match := _DATE.fullmatch(text)) is not None:
        year, month, day = map(int, match["date"].split("-"))
        at = datetime(
            year,
            month,
            day,
            int(match["hour"] or 0),
            int(match["minute"] or 0),
            int(match["second"] or 0),
            tzinfo=_zone((match["zone"] or "Z").replace(":", "")),
        )
        return int(at.timestamp()) * _SECOND_NS + int((match["fraction"] or "0").ljust(9, "0"))
    if (match := _RFC1123Z.fullmatch(text)) is not None and match["month"] in _MONTHS:
        hour, minute, second = map(int, match["clock"].split(":"))
        month = _MONTHS.index(match["month"]) + 1
        at = datetime(int(match["year"]), month, int(match["day"]), hour, minute, second, tzinfo=_zone(match["zone"]))
        return int(at.timestamp()) * _SECOND_NS
    raise ValueError(f"{text!r} is neither a duration like 5m nor a time like 2006-01-02T15:04:05Z")


def _zone(text: str) -> timezone:
    if text == "Z":
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return timezone(-offset if text[0] == "-" else offset)


def format_duration(ns: int) -> str:
    """A duration as Go prints it: `1m40s`, `2h3m0s`, `150ms`."""
    if ns < _SECOND_NS:
        for unit, size in (("ms", 10**6), ("µs", 10**3)):
            if ns >= size:
                return f"{_number(ns / size)}{unit}"
        return f"{ns}ns" if ns else "0s"
    seconds, rest = divmod(ns, 60 * _SECOND_NS)
    hours, minutes = divmod(seconds, 60)
    text = f"{_number(rest / _SECOND_NS)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _number(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")
