"""Go's times and durations."""

import pytest

from mycel.observe.times import format_duration, format_time, parse_duration_ns, parse_time_ns

AT_NS = 1_766_066_857_200_030_000  # 2025-12-18 14:07:37.20003 UTC
NOW_NS = 2_000_000_000_000_000_000


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("StampMilli", "Dec 18 14:07:37.200"),
        ("unknown", "Dec 18 14:07:37.200"),
        ("YearMonthDay", "2025-12-18"),
        ("YearMonthDayHour", "2025-12-18T14Z"),
        ("YearMonthDayHourMinute", "2025-12-18T14:07Z"),
        ("RFC3339", "2025-12-18T14:07:37Z"),
        ("RFC3339Milli", "2025-12-18T14:07:37.2Z"),
        ("RFC3339Micro", "2025-12-18T14:07:37.20003Z"),
        ("rfc3339nano", "2025-12-18T14:07:37.20003Z"),
        ("RFC1123Z", "Thu, 18 Dec 2025 14:07:37 +0000"),
    ],
)
def test_formats(layout: str, expected: str) -> None:
    """Every layout of --time-format."""
    assert expected == format_time(AT_NS, layout)


def test_day_is_padded_with_a_space() -> None:
    """`_2` of Go's layout."""
    assert format_time(0) == "Jan  1 00:00:00.000"
    assert format_time(0, "RFC3339Nano") == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5m", NOW_NS - 300 * 10**9),
        ("1h30m", NOW_NS - 5400 * 10**9),
        ("1.5s", NOW_NS - 1_500_000_000),
        ("250ms", NOW_NS - 250_000_000),
        ("0", NOW_NS),
        ("2025-12-18T14:07:37Z", AT_NS - 200_030_000),
        ("2025-12-18T15:07:37.20003+01:00", AT_NS),
        ("2025-12-18T14:07-00:00", AT_NS - 37_200_030_000),
        ("2025-12-18T14Z", AT_NS - 457_200_030_000),
        ("2025-12-18", 1_766_016_000_000_000_000),
        ("Thu, 18 Dec 2025 15:07:37 +0100", AT_NS - 200_030_000),
    ],
)
def test_since(text: str, expected: int) -> None:
    """Durations count back from now, dates are what they say."""
    assert expected == parse_time_ns(text, now_ns=NOW_NS)


@pytest.mark.parametrize("text", ["", "5", "yesterday", "5m3", "2025-13-01", "2025-12-18 14:07:37", "m"])
def test_nonsense(text: str) -> None:
    """What is no time is refused."""
    with pytest.raises(ValueError, match=r".+"):
        parse_time_ns(text, now_ns=NOW_NS)


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        (0, "0s"),
        (999, "999ns"),
        (1_500, "1.5µs"),
        (150_000_000, "150ms"),
        (1_500_000_000, "1.5s"),
        (100_000_000_000, "1m40s"),
        (7_380_000_000_000, "2h3m0s"),
    ],
)
def test_durations(ns: int, expected: str) -> None:
    """As Go prints them, and read back."""
    assert expected == format_duration(ns)
    assert ns == parse_duration_ns(expected)
