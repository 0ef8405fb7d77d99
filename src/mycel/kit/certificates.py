"""Authorities and server certificates of the mesh's own, on P-256: a fraction of RSA's cost to make and to use."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class KeyPair(NamedTuple):
    """Certificate and key, each base64 of PEM, as a Secret holds them. Never logged."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "KeyPair(…)"


def make_authority(name: str, now: datetime.datetime, *, days: int) -> KeyPair:
    """A self-signed authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    builder = (
        builder_of(subject, subject, key, *_validity(now, days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def make_server(
    authority: KeyPair, names: Sequence[str], now: datetime.datetime, *, days: int, also_client: bool = False
) -> KeyPair:
    """A certificate for a server of these names. Raises ValueError for an authority that is none of ours."""
    issuer = x509.load_pem_x509_certificate(base64.b64decode(authority.certificate))
    issuer_key = serialization.load_pem_private_key(base64.b64decode(authority.key), password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is no elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if also_client else [])]
    # Its key's name finds the right one of several authorities of one name.
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        builder_of(_name(names[0]), issuer.subject, key, *_validity(now, days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(signed_by, critical=False)
    )
    return _pair(builder.sign(issuer_key, hashes.SHA256()), key)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _validity(now: datetime.datetime, days: int) -> tuple[datetime.datetime, datetime.datetime]:
    return now - datetime.timedelta(minutes=5), now + datetime.timedelta(days=days)


def builder_of(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    since: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    """A certificate of this key that lacks its extensions and signature."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Of an authority, or of who shows the certificate (RFC 5280 4.2.1.3)."""
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as it is kept, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return KeyPair(base64.b64encode(public).decode(), base64.b64encode(key_pem(key)).decode())
