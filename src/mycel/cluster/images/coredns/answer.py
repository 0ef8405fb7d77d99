"""What a plugin that answers from memory says about a question."""

from __future__ import annotations

from typing import NamedTuple

from mycel.kit.dns import RCode, Record


class Answer(NamedTuple):
    """An authoritative answer; with no records, NODATA or (by `rcode`) NXDOMAIN."""

    records: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    rcode: RCode = RCode.NOERROR
