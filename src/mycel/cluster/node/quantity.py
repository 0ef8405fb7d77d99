"""Kubernetes quantities (`100m`, `1.5Gi`, `1e3`) as exact numbers. Pure."""

from __future__ import annotations

import math
import re
from fractions import Fraction

_SHAPE = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d{1,3})?")
_SUFFIXES = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15), "E": Fraction(10**18), "Ki": Fraction(2**10),
    "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40), "Pi": Fraction(2**50), "Ei": Fraction(2**60),
}  # fmt: skip


def parse(text: str | int | float) -> Fraction:
    """The exact value. Raises ValueError naming what was given."""
    found = _SHAPE.fullmatch(str(text).strip())
    if found is None:
        raise ValueError(f"{text!r} is not a quantity such as 100m, 2 or 1.5Gi")
    number, suffix = Fraction(found[1]), found[2]
    if suffix is None:
        return number
    if suffix in _SUFFIXES:
        return number * _SUFFIXES[suffix]
    return number * Fraction(10) ** int(suffix[1:])


def divided(text: str | int, divisor: str | int = "1") -> int:
    """How often `divisor` goes into the quantity, rounded up, as the downward API reports."""
    unit = parse(divisor) or Fraction(1)
    return math.ceil(parse(text) / unit)
