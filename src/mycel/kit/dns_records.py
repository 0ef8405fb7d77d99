"""Making DNS records, and names of addresses (RFC 1035, 2782, 3596)."""

from __future__ import annotations

import ipaddress
import struct

from mycel.kit.dns import IPAddress, Record, Type, name_wire


def reverse_name(address: IPAddress) -> str:
    """The name under in-addr.arpa or ip6.arpa of an address."""
    return address.reverse_pointer + "."


def address_of_reverse(name: str) -> IPAddress | None:
    """The address a complete reverse name stands for."""
    folded = name.lower()
    if folded.endswith(".in-addr.arpa."):
        parts = folded.removesuffix(".in-addr.arpa.").split(".")
        text = ".".join(reversed(parts)) if len(parts) == 4 else ""
    elif folded.endswith(".ip6.arpa."):
        nibbles = folded.removesuffix(".ip6.arpa.").split(".")
        digits = "".join(reversed(nibbles))
        ok = len(nibbles) == 32 and len(digits) == 32
        text = ":".join(digits[at : at + 4] for at in range(0, 32, 4)) if ok else ""
    else:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def address_record(name: str, ttl: int, address: IPAddress) -> Record:
    """An A or AAAA record."""
    return Record(name, Type.A if address.version == 4 else Type.AAAA, ttl, address.packed)


def name_record(name: str, kind: Type, ttl: int, target: str) -> Record:
    """A CNAME, NS or PTR record."""
    return Record(name, kind, ttl, name_wire(target))


def srv_record(name: str, ttl: int, *, priority: int, weight: int, port: int, target: str) -> Record:
    """An SRV record; its target is never compressed (RFC 2782)."""
    return Record(name, Type.SRV, ttl, struct.pack("!HHH", priority, weight, port) + name_wire(target))


def txt_record(name: str, ttl: int, text: str) -> Record:
    """A TXT record of strings of at most 255 bytes each."""
    raw = text.encode()
    parts = [raw[at : at + 255] for at in range(0, len(raw), 255)] or [b""]
    return Record(name, Type.TXT, ttl, b"".join(bytes([len(part)]) + part for part in parts))


def soa_record(
    name: str, ttl: int, *, mname: str, rname: str, serial: int, timers: tuple[int, int, int, int]
) -> Record:
    """An SOA record; `timers` are refresh, retry, expire and minimum in seconds."""
    return Record(name, Type.SOA, ttl, name_wire(mname) + name_wire(rname) + struct.pack("!5I", serial, *timers))
