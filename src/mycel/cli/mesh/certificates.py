"""The mesh's certificate authority and Hubble's server certificate: made once, then kept in Secrets."""

from __future__ import annotations

import datetime

from mycel.kit import certificates
from mycel.kit.certificates import KeyPair

_VALID_DAYS = 3 * 365


def make_authority(now: datetime.datetime) -> KeyPair:
    """The authority of Secret cilium-ca."""
    return certificates.make_authority("Cilium CA", now, days=_VALID_DAYS)


def make_hubble_server(authority: KeyPair, cluster: str, now: datetime.datetime) -> KeyPair:
    """The certificate every agent's Hubble server shows: `*.<cluster>.hubble-grpc.cilium.io`."""
    names = [f"*.{cluster}.hubble-grpc.cilium.io"]
    try:
        return certificates.make_server(authority, names, now, days=_VALID_DAYS, also_client=True)
    except ValueError as exc:
        raise ValueError(f"Secret cilium-ca cannot be used: {exc}; delete the Secret to have a new one") from exc
