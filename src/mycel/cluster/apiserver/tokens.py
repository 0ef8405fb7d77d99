"""Service-account tokens: JWTs signed with ES256 (RFC 7518), bound to an account and, mostly, to a pod.

A token is good while its signature, time and audience are, and while the account (and pod) it names still exists
with the same uid.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from mycel.cluster.apiserver.authn import User
from mycel.cluster.apiserver.pki import Pki
from mycel.cluster.store import ResourceId, Store

ISSUER = "https://kubernetes.default.svc.cluster.local"
DEFAULT_AUDIENCE = ISSUER
_CACHE = 1024
_MAX_TOKEN = 8192


class Tokens:
    """Signs and verifies."""

    def __init__(self, pki: Pki, store: Store) -> None:
        private = serialization.load_pem_private_key(pki.service_account_key.read_bytes(), password=None)
        self._private = cast(ec.EllipticCurvePrivateKey, private)
        self._public = self._private.public_key()
        der = self._public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self._key_id = _b64url(hashlib.sha256(der).digest())
        self._store = store
        self._verified: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def issue(
        self,
        account: dict[str, Any],
        *,
        audiences: Sequence[str],
        lifetime_s: int,
        bound: dict[str, Any] | None = None,
    ) -> tuple[str, float]:
        """A token for a ServiceAccount object, bound to `bound` (kind, name, uid) → (token, expiry as Unix time)."""
        now = int(time.time())
        meta = account["metadata"]
        identity: dict[str, Any] = {
            "namespace": meta["namespace"],
            "serviceaccount": {"name": meta["name"], "uid": meta["uid"]},
        }
        if bound:
            identity[bound["kind"].lower()] = {"name": bound["name"], "uid": bound.get("uid", "")}
        claims = {
            "aud": list(audiences) or [DEFAULT_AUDIENCE],
            "exp": now + lifetime_s,
            "iat": now,
            "nbf": now,
            "iss": ISSUER,
            "kubernetes.io": identity,
            "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
        }
        header = {"alg": "ES256", "kid": self._key_id, "typ": "JWT"}
        signed = f"{_b64url(msgspec.json.encode(header))}.{_b64url(msgspec.json.encode(claims))}"
        der = self._private.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(der)
        return f"{signed}.{_b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}", float(now + lifetime_s)

    def verify(self, token: str) -> User | None:
        """The user of a token for this API server; None when it is not good (any more)."""
        return self.review(token, (DEFAULT_AUDIENCE,))[0]

    def review(self, token: str, audiences: Sequence[str]) -> tuple[User | None, list[str]]:
        """(user, audiences both sides know); the user is None when the token is not good for them."""
        claims = self._claims(token)
        if claims is None:
            return None, []
        shared = [name for name in (audiences or (DEFAULT_AUDIENCE,)) if name in claims["aud"]]
        now = time.time()
        if not shared or now >= claims["exp"] or now < claims["nbf"] - 10:
            return None, []
        identity = claims["kubernetes.io"]
        namespace, account = identity["namespace"], identity["serviceaccount"]
        if not self._exists("serviceaccounts", namespace, account):
            return None, []
        extra: dict[str, tuple[str, ...]] = {}
        for kind in ("pod", "secret", "node"):
            bound = identity.get(kind)
            if bound is None:
                continue
            if not self._exists(f"{kind}s", "" if kind == "node" else namespace, bound):
                return None, []
            extra[f"authentication.kubernetes.io/{kind}-name"] = (bound["name"],)
            extra[f"authentication.kubernetes.io/{kind}-uid"] = (bound["uid"],)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(claims["sub"], groups, uid=account["uid"], extra=extra), shared

    def _exists(self, resource: str, namespace: str, named: dict[str, str]) -> bool:
        record = self._store.get(ResourceId(resource), namespace, named["name"])
        return record is not None and record.obj["metadata"]["uid"] == named["uid"]

    def _claims(self, token: str) -> dict[str, Any] | None:
        """Claims of a token with a good signature; remembered, since every request carries its token again."""
        if token in self._verified:
            self._verified.move_to_end(token)
            return self._verified[token]
        parts = token.split(".")
        if len(parts) != 3 or len(token) > _MAX_TOKEN:
            return None
        try:
            header = msgspec.json.decode(_unb64url(parts[0]))
            claims = msgspec.json.decode(_unb64url(parts[1]))
            signature = _unb64url(parts[2])
        except (binascii.Error, ValueError):
            return None
        if not isinstance(header, dict) or header.get("alg") != "ES256" or len(signature) != 64:
            return None
        der = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        try:
            self._public.verify(der, f"{parts[0]}.{parts[1]}".encode(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return None
        self._verified[token] = claims
        if len(self._verified) > _CACHE:
            self._verified.popitem(last=False)
        return claims


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64url(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
