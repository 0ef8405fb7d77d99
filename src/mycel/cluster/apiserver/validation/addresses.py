"""Addresses and prefixes in text."""

from __future__ import annotations

import ipaddress


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def is_prefix(text: str) -> bool:
    """Whether `text` is address/length; host bits may be set."""
    if "/" not in text:
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
