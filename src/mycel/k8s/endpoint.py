"""Where the API server is and how we prove who we are: from a kubeconfig or from inside a pod.

Nothing here connects. Certificates stay in memory: OpenSSL wants client certificates as files, so it gets an
anonymous one (memfd), never a path on disk.
"""

from __future__ import annotations

import base64
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConfigError(Exception):
    """The kubeconfig or the pod's service account cannot be used; the message names file and field."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One API server with credentials. Secrets are left out of `repr`."""

    server: str
    ca_pem: str | None = None
    certificate_pem: str | None = field(default=None, repr=False)
    key_pem: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    insecure: bool = False
    tls_server_name: str | None = None
    namespace: str = "default"
    context: str = ""

    @classmethod
    def from_kubeconfig(cls, path: str | Path | None = None, context: str | None = None) -> Endpoint:
        """From `path`, else $KUBECONFIG (the first file that has the context), else ~/.kube/config."""
        if path is not None:
            candidates = [Path(path)]
        elif os.environ.get("KUBECONFIG"):
            candidates = [Path(part) for part in os.environ["KUBECONFIG"].split(os.pathsep) if part]
        else:
            candidates = [Path.home() / ".kube" / "config"]
        found = [candidate for candidate in candidates if candidate.is_file()]
        if not found:
            names = ", ".join(str(candidate) for candidate in candidates)
            raise ConfigError(f"no kubeconfig at {names}: create a cluster first, or set KUBECONFIG")
        return _from_files(found, context)

    @classmethod
    def in_cluster(cls) -> Endpoint:
        """From the pod's environment and service account; the token is read again as it is renewed."""
        host, port = (
            os.environ.get("KUBERNETES_SERVICE_HOST"),
            os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
        )
        token, authority = _SERVICE_ACCOUNT / "token", _SERVICE_ACCOUNT / "ca.crt"
        if not host:
            raise ConfigError("KUBERNETES_SERVICE_HOST is not set: this does not run in a pod")
        if not token.is_file():
            raise ConfigError(f"{token} is missing: the pod has no service account token mounted")
        namespace = _SERVICE_ACCOUNT / "namespace"
        return cls(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            ca_pem=authority.read_text() if authority.is_file() else None,
            token_file=token,
            namespace=namespace.read_text().strip() if namespace.is_file() else "default",
        )

    @classmethod
    def detect(cls) -> Endpoint:
        """In a pod the pod's own, else the kubeconfig's."""
        return cls.in_cluster() if os.environ.get("KUBERNETES_SERVICE_HOST") else cls.from_kubeconfig()

    def ssl_context(self) -> ssl.SSLContext | None:
        """A client context, or None for a plain http server."""
        if not self.server.startswith("https"):
            return None
        context = ssl.create_default_context(cadata=self.ca_pem)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_pem and self.key_pem:
            with open(os.memfd_create("client-certificate"), "w") as file:
                file.write(self.certificate_pem.rstrip() + "\n" + self.key_pem)
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return context


def _from_files(paths: list[Path], context: str | None) -> Endpoint:
    """kubectl's merge: the first file to set `current-context` or to define a name wins."""
    named: dict[str, dict[str, tuple[Path, dict[str, Any]]]] = {"contexts": {}, "clusters": {}, "users": {}}
    current = context
    for path in paths:
        try:
            data: Any = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        except (OSError, yaml.YAMLError) as exc:
            raise ConfigError(f"cannot read kubeconfig {path}: {exc}") from exc
        if not isinstance(data, dict):
            continue
        current = current or data.get("current-context") or None
        for section, entries in named.items():
            for entry in data.get(section) or []:
                entries.setdefault(str(entry.get("name")), (path, entry.get(section[:-1]) or {}))
    if not current:
        raise ConfigError(f"{paths[0]} has no current-context: set one with kubectl config use-context")
    if current not in named["contexts"]:
        known = ", ".join(sorted(named["contexts"])) or "none"
        raise ConfigError(f"context {current} is not in {paths[0]} (there is: {known})")
    chosen = named["contexts"][current][1]
    if chosen.get("cluster") not in named["clusters"]:
        raise ConfigError(f"cluster {chosen.get('cluster')} of context {current} is not in {paths[0]}")
    cluster_path, cluster = named["clusters"][chosen["cluster"]]
    user_path, user = named["users"].get(str(chosen.get("user")), (paths[0], {}))
    if user.get("exec") or user.get("auth-provider"):
        raise ConfigError(f"user {chosen.get('user')} in {user_path} uses a login plugin, which is not supported")
    token_file = user.get("tokenFile")
    return Endpoint(
        server=str(cluster.get("server", "")).rstrip("/"),
        ca_pem=_pem(cluster_path, cluster, "certificate-authority"),
        certificate_pem=_pem(user_path, user, "client-certificate"),
        key_pem=_pem(user_path, user, "client-key"),
        token=user.get("token"),
        token_file=Path(user_path.parent, token_file) if token_file else None,
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=cluster.get("tls-server-name"),
        namespace=chosen.get("namespace") or "default",
        context=current,
    )


def _pem(path: Path, entry: dict[str, Any], name: str) -> str | None:
    """`<name>-data` (base64) or the file `<name>`, relative to the kubeconfig."""
    if entry.get(f"{name}-data"):
        try:
            return base64.b64decode(entry[f"{name}-data"], validate=True).decode("ascii")
        except ValueError as exc:
            raise ConfigError(f"{path}: {name}-data is not base64") from exc
    if entry.get(name):
        file = Path(path.parent, entry[name])
        try:
            return file.read_text()
        except OSError as exc:
            raise ConfigError(f"{path}: cannot read {name} {file}: {exc.strerror}") from exc
    return None
