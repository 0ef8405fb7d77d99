"""Who is asking: client certificates (CN is the user, O the groups) and service-account tokens.

Anonymous requests reach /healthz, /livez, /readyz and /version only. Everybody who is known may do everything:
RBAC objects are stored and shown, not enforced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mycel.cluster.apiserver.errors import unauthorized


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated client."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def info(self) -> dict[str, Any]:
        """As authentication/v1 UserInfo."""
        return {
            "username": self.name,
            **({"uid": self.uid} if self.uid else {}),
            "groups": list(self.groups),
            **({"extra": {key: list(values) for key, values in self.extra.items()}} if self.extra else {}),
        }


class TokenVerifier(Protocol):
    """Turns a bearer token into a user, or None."""

    def verify(self, token: str) -> User | None: ...


def user_of_certificate(certificate: Mapping[str, Any] | None) -> User | None:
    """The user of a verified client certificate, as `ssl` describes it."""
    if not certificate:
        return None
    name, groups = "", list[str]()
    for relative in certificate.get("subject", ()):
        for key, value in relative:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return User(name, (*groups, "system:authenticated")) if name else None


def authenticate(certificate: Mapping[str, Any] | None, authorization: str, verifier: TokenVerifier) -> User:
    """The user of a request; ApiFault 401 when nobody vouches for it."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token:
        user = verifier.verify(token.strip())
        if user is None:
            raise unauthorized()
        return user
    user = user_of_certificate(certificate)
    if user is None:
        raise unauthorized()
    return user
