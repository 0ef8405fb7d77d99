"""Authority and certificate of the admission server: what its Secret holds, and when what is made anew.

Whoever asks trusts every authority of the Secret that has not ended. A new one is made long before the last one ends,
and signs only the next certificate: when that is shown, everybody has heard of its authority. Pure.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from mycel.kit.certificates import KeyPair, make_authority, make_server
from mycel.operator.settings import ADMISSION_SECRET

_AUTHORITY_DAYS, _CERTIFICATE_DAYS = 3 * 365, 90
_AUTHORITY_LEFT = datetime.timedelta(days=180)
_CERTIFICATE_LEFT = datetime.timedelta(days=30)


class Material(NamedTuple):
    """What the Secret holds, in PEM. Never logged."""

    authorities: bytes  # the newest, which signs, is the first
    authority_key: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Material(…)"


def read_secret(secret: Mapping[str, Any]) -> Material | None:
    """What a Secret holds; None when something is missing or is no base64."""
    data = secret.get("data") or {}
    try:
        return Material(*(base64.b64decode(data[each]) for each in ("ca.crt", "ca.key", "tls.crt", "tls.key")))
    except (KeyError, TypeError, ValueError):
        return None


def secret(namespace: str, held: Material) -> dict[str, Any]:
    """The Secret to write."""
    data = dict(zip(("ca.crt", "ca.key", "tls.crt", "tls.key"), map(_text, held), strict=True))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": ADMISSION_SECRET,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "cilium"},
        },
        "type": "Opaque",
        "data": data,
    }


def renewed(held: Material | None, names: Sequence[str], now: datetime.datetime) -> Material:
    """What the Secret should hold for a server of these names: as it is, as long as all of it is good."""
    held = held or Material(b"", b"", b"", b"")
    authorities = [each for each in _certificates(held.authorities) if each.not_valid_after_utc > now]
    key = held.authority_key
    if not authorities or not _lasts(authorities[0], now, _AUTHORITY_LEFT) or not _belong(authorities[0], key):
        made = make_authority("Cilium admission CA", now, days=_AUTHORITY_DAYS)
        authorities.insert(0, x509.load_pem_x509_certificate(base64.b64decode(made.certificate)))
        key = base64.b64decode(made.key)
    kept = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in authorities)
    if _good(held, authorities, names, now):
        return Material(kept, key, held.certificate, held.key)
    first = authorities[0].public_bytes(serialization.Encoding.PEM)
    server = make_server(KeyPair(_text(first), _text(key)), names, now, days=_CERTIFICATE_DAYS)
    return Material(kept, key, base64.b64decode(server.certificate), base64.b64decode(server.key))


def _good(
    held: Material, authorities: Sequence[x509.Certificate], names: Sequence[str], now: datetime.datetime
) -> bool:
    """Whether the certificate is for these names, of one of these authorities, and lasts."""
    found = _certificates(held.certificate)
    if len(found) != 1 or not _belong(found[0], held.key) or not _lasts(found[0], now, _CERTIFICATE_LEFT):
        return False
    try:
        named = found[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return named.get_values_for_type(x509.DNSName) == list(names) and any(
        _issued(each, found[0]) for each in authorities
    )


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []


def _lasts(certificate: x509.Certificate, now: datetime.datetime, left: datetime.timedelta) -> bool:
    return certificate.not_valid_before_utc <= now and certificate.not_valid_after_utc > now + left


def _belong(certificate: x509.Certificate, key: bytes) -> bool:
    try:
        return serialization.load_pem_private_key(key, password=None).public_key() == certificate.public_key()
    except (ValueError, TypeError):
        return False


def _issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _text(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
