"""The cluster's keys and certificates: made once in `<cluster>/pki`, read by every process that needs them.

One CA signs everything. Files: ca, apiserver (serving), admin, controllers, apiserver-kubelet-client (what the
API server shows to nodes), `nodes/<node>` (client and serving), and sa (the key pair that signs service-account
tokens). Certificates are `.crt`, keys `.key` (0600), the directory 0700. P-256 throughout: a fraction of RSA's
cost to make and to shake hands with.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mycel.kit.certificates import builder_of, key_pem, key_usage

_CA_YEARS = 10
_LEAF_YEARS = 5
_KUBERNETES_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
_KUBERNETES_ADDRESSES = ("127.0.0.1", "::1", "10.96.0.1")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Pki:
    """The keys below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def ca_certificate(self) -> Path:
        """The CA everybody of the cluster trusts."""
        return self.directory / "ca.crt"

    @property
    def service_account_key(self) -> Path:
        """Signs service-account tokens."""
        return self.directory / "sa.key"

    @property
    def service_account_public(self) -> Path:
        """Verifies service-account tokens."""
        return self.directory / "sa.pub"

    def pair(self, name: str) -> KeyPair:
        """`apiserver`, `admin`, `controllers`, `apiserver-kubelet-client` or `nodes/<node>`."""
        return KeyPair(self.directory / f"{name}.crt", self.directory / f"{name}.key")

    def ensure(self, *, names: Iterable[str] = (), addresses: Iterable[str] = ()) -> None:
        """Make whatever is missing; the serving certificate is made anew when it lacks a name or address."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        if not self.ca_certificate.exists() or not self.pair("ca").key.exists():
            self._make_ca()
        if not self.service_account_key.exists() or not self.service_account_public.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            _write(self.service_account_key, key_pem(key), private=True)
            _write(self.service_account_public, _public_pem(key), private=False)
        self._ensure_leaf("admin", "kubernetes-admin", groups=("system:masters",))
        self._ensure_leaf("controllers", "system:kube-controller-manager", groups=("system:masters",))
        self._ensure_leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", groups=("system:masters",))
        self._ensure_leaf(
            "apiserver",
            "kube-apiserver",
            names=(*_KUBERNETES_NAMES, *names),
            addresses=(*_KUBERNETES_ADDRESSES, *addresses),
        )

    def ensure_node(self, node: str, addresses: Sequence[str]) -> KeyPair:
        """The certificate a node shows as client (system:node:<node>) and on its port 10250."""
        self._ensure_leaf(
            f"nodes/{node}",
            f"system:node:{node}",
            groups=("system:nodes",),
            names=(node, "localhost"),
            addresses=("127.0.0.1", *addresses),
        )
        return self.pair(f"nodes/{node}")

    def kubeconfig(self, server: str, *, context: str, pair: str = "admin", user: str | None = None) -> str:
        """A kubeconfig (YAML) with everything inside, for `server` such as https://127.0.0.1:6443."""
        files = self.pair(pair)
        user = user or context
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": context,
                    "cluster": {"server": server, "certificate-authority-data": _b64(self.ca_certificate)},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": _b64(files.certificate),
                        "client-key-data": _b64(files.key),
                    },
                }
            ],
            "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
            "current-context": context,
            "preferences": {},
        }
        return yaml.safe_dump(document, sort_keys=False)

    # --- making ---

    def _make_ca(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mycel-cluster-ca")])
        certificate = (
            builder_of(subject, subject, key, *_validity(years=_CA_YEARS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self.pair("ca").key, key_pem(key), private=True)
        _write(self.ca_certificate, certificate.public_bytes(serialization.Encoding.PEM), private=False)

    def _ensure_leaf(
        self,
        name: str,
        common_name: str,
        *,
        groups: Sequence[str] = (),
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> None:
        wanted = _alternative_names(names, addresses)
        files = self.pair(name)
        if files.certificate.exists() and files.key.exists() and _has_names(files.certificate, wanted):
            return
        ca_key = cast(
            ec.EllipticCurvePrivateKey,
            serialization.load_pem_private_key(self.pair("ca").key.read_bytes(), password=None),
        )
        ca = x509.load_pem_x509_certificate(self.ca_certificate.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if wanted:
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = (
            builder_of(subject, ca.subject, key, *_validity(years=_LEAF_YEARS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if wanted:
            builder = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        certificate = builder.sign(ca_key, hashes.SHA256())
        _write(files.key, key_pem(key), private=True)
        _write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), private=False)


def _validity(*, years: int) -> tuple[datetime.datetime, datetime.datetime]:
    now = datetime.datetime.now(datetime.UTC)
    since = now - datetime.timedelta(hours=1)  # clocks that run a little behind
    return since, now + datetime.timedelta(days=365 * years)


def _alternative_names(names: Sequence[str], addresses: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys(names)]
    found.extend(x509.IPAddress(ipaddress.ip_address(address)) for address in dict.fromkeys(addresses))
    return found


def _has_names(certificate: Path, wanted: list[x509.GeneralName]) -> bool:
    if not wanted:
        return True
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    try:
        present = list(loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return False
    return all(name in present for name in wanted)


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _write(path: Path, content: bytes, *, private: bool) -> None:
    """Write through a new file and rename, so that nobody reads half a key and a crash leaves none."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _b64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
