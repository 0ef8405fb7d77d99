"""The admission server's certificate: kept while it is good, made anew in time, never one its askers do not know."""

from __future__ import annotations

import base64
import datetime
import ssl
from dataclasses import dataclass

import pytest
from cryptography import x509

from mycel.operator.admission.certificates import Material, read_secret, renewed, secret
from mycel.operator.admission.server import load

NAMES = ("cilium-admission.kube-system.svc",)
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def later(days: int) -> datetime.datetime:
    return NOW + datetime.timedelta(days=days)


def authorities(held: Material) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(held.authorities)


def signer(held: Material) -> bytes:
    """The authority that issued what is shown."""
    shown = x509.load_pem_x509_certificate(held.certificate)
    for each in authorities(held):
        try:
            shown.verify_directly_issued_by(each)
        except Exception:
            continue
        return each.fingerprint(each.signature_hash_algorithm)
    raise AssertionError("nobody")


def test_what_is_good_stays_through_its_secret() -> None:
    """Byte by byte, so that nothing is written."""
    made = renewed(None, NAMES, NOW)
    assert read_secret(secret("kube-system", made)) == made
    assert renewed(made, NAMES, later(59)) == made
    assert repr(made) == "Material(…)"


def test_the_certificate_is_made_anew_before_it_ends_and_for_other_names() -> None:
    """By the same authority."""
    made = renewed(None, NAMES, NOW)
    for again in (renewed(made, NAMES, later(61)), renewed(made, ("other.svc",), NOW)):
        assert again.authorities == made.authorities
        assert again.certificate != made.certificate
        assert again.key != made.key


def test_an_authority_is_known_before_anything_is_signed_by_it_and_until_all_of_it_has_ended() -> None:
    """Years go by, a day at a time: whoever knew yesterday's authorities trusts today's certificate."""
    held = renewed(None, NAMES, NOW)
    seen, most = {signer(held)}, 1
    for day in range(1, 7 * 365, 7):
        known = {each.fingerprint(each.signature_hash_algorithm) for each in authorities(held)}
        held = renewed(held, NAMES, later(day))
        assert signer(held) in known
        assert x509.load_pem_x509_certificate(held.certificate).not_valid_after_utc > later(day + 14)
        seen.add(signer(held))
        most = max(most, len(authorities(held)))
    assert len(seen) > 2
    assert most == 2, "what has ended is dropped"


@pytest.mark.parametrize("broken", ["authorities", "authority_key", "certificate", "key"])
def test_what_somebody_broke_is_made_anew(broken: str) -> None:
    """Also when a part is of something else."""
    made, other = renewed(None, NAMES, NOW), renewed(None, NAMES, NOW)
    for junk in (b"", b"junk", getattr(other, broken)):
        mended = renewed(made._replace(**{broken: junk}), NAMES, NOW)
        assert renewed(mended, NAMES, NOW) == mended
        assert signer(mended)
    assert read_secret({"data": {"ca.crt": "?"}}) is None
    assert read_secret({}) is None


@dataclass
class Pipe:
    """A TLS handshake in memory."""

    server: ssl.SSLContext
    client: ssl.SSLContext

    def shake_hands(self) -> bytes:
        """What the server shows, in DER. Raises ssl.SSLError when the client does not trust it."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            self.client.wrap_bio(to_client, to_server, server_hostname=NAMES[0]),
            self.server.wrap_bio(to_server, to_client, server_side=True),
        ]
        for _ in range(4):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
        shown = ends[0].getpeercert(binary_form=True)
        assert shown is not None
        return shown


def trusting(held: Material) -> ssl.SSLContext:
    """As the API server does by caBundle."""
    bundle = base64.b64decode(base64.b64encode(held.authorities))
    return ssl.create_default_context(cadata=bundle.decode())


def test_a_context_shows_a_new_certificate_from_the_next_handshake_on() -> None:
    """Of either authority, when two are known that have one name."""
    now = datetime.datetime.now(datetime.UTC)
    first = renewed(None, NAMES, now - datetime.timedelta(days=925))  # its authority ends in 170 days
    assert len(authorities(first)) == 1
    both = renewed(first._replace(certificate=b""), NAMES, now)
    assert len(authorities(both)) == 2
    old = both._replace(**_signed_by_the_old(first, now))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = trusting(both)
    for held in (old, both):
        load(server, held)
        der = Pipe(server, client).shake_hands()
        assert der == ssl.PEM_cert_to_DER_cert(held.certificate.decode())
    with pytest.raises(ssl.SSLCertVerificationError):
        Pipe(server, trusting(first)).shake_hands()


def _signed_by_the_old(first: Material, now: datetime.datetime) -> dict[str, bytes]:
    """A certificate that lasts, of an authority that is about to end."""
    made = renewed(first._replace(certificate=b""), NAMES, now - datetime.timedelta(days=20))
    assert made.authorities == first.authorities
    return {"certificate": made.certificate, "key": made.key}
