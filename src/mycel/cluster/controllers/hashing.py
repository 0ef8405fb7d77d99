"""Short stable hashes for object names: the same template always gives the same name."""

from __future__ import annotations

import json
from typing import Any

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and no look-alikes, as Kubernetes' own generated names: no words arise by accident."""


def safe_encode(text: str) -> str:
    """Map every character into the alphabet of generated names."""
    return "".join(_ALPHABET[ord(char) % len(_ALPHABET)] for char in text)


def template_hash(template: Any, collisions: int = 0) -> str:
    """FNV-1a (32 bit) over the canonical JSON of a pod template, ready for a label and a name."""
    canonical = json.dumps(template, sort_keys=True, separators=(",", ":")).encode()
    if collisions:
        canonical += collisions.to_bytes(8, "little")
    digest = 0x811C9DC5
    for byte in canonical:
        digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
    return safe_encode(str(digest))
