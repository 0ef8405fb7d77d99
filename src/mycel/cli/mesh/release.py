"""Helm's record of a release: a Secret per revision, which `helm list` and `cilium version` read too.

Format: base64 of (base64 of (gzip of (JSON of hapi/release.Release))), Helm v3's `secrets` storage driver.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from dataclasses import dataclass
from typing import Any

import yaml

Object = dict[str, Any]

NAME = "cilium"
SELECTOR = f"name={NAME},owner=helm"
_LIMIT = 16 << 20  # a release is kilobytes; this is what we would unpack at most


@dataclass(frozen=True, slots=True)
class Record:
    """One revision."""

    revision: int
    namespace: str
    values: Object
    manifest: str
    chart: Object
    first_deployed: str
    last_deployed: str
    status: str = "deployed"

    @property
    def objects(self) -> set[tuple[str, str, str]]:
        """(kind, namespace or empty, name) of everything in the manifest."""
        found: set[tuple[str, str, str]] = set()
        for item in yaml.load_all(self.manifest, Loader=yaml.CSafeLoader):
            if item:
                metadata = item["metadata"]
                found.add((item["kind"], metadata.get("namespace", ""), metadata["name"]))
        return found


def secret_name(revision: int) -> str:
    """As Helm names it."""
    return f"sh.helm.release.v1.{NAME}.v{revision}"


def to_secret(record: Record) -> Object:
    """The Secret of a revision."""
    release = {
        "name": NAME,
        "namespace": record.namespace,
        "version": record.revision,
        "info": {
            "status": record.status,
            "first_deployed": record.first_deployed,
            "last_deployed": record.last_deployed,
            "deleted": "",
            "description": "Install complete" if record.revision == 1 else "Upgrade complete",
        },
        "chart": {"metadata": record.chart, "values": {}, "templates": []},
        "config": record.values,
        "manifest": record.manifest,
    }
    packed = gzip.compress(json.dumps(release).encode(), mtime=0)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "helm.sh/release.v1",
        "metadata": {
            "name": secret_name(record.revision),
            "namespace": record.namespace,
            "labels": {
                "name": NAME,
                "owner": "helm",
                "status": record.status,
                "version": str(record.revision),
            },
        },
        "data": {"release": base64.b64encode(base64.b64encode(packed)).decode()},
    }


def from_secret(secret: Object) -> Record | None:
    """The record in a Secret; None when it cannot be read (then nobody's settings are taken over)."""
    try:
        packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        unpacker = zlib.decompressobj(wbits=31)
        release = json.loads(unpacker.decompress(packed, _LIMIT))
        return Record(
            revision=int(release["version"]),
            namespace=release["namespace"],
            values=release.get("config") or {},
            manifest=release.get("manifest") or "",
            chart=release["chart"]["metadata"],
            first_deployed=release["info"].get("first_deployed", ""),
            last_deployed=release["info"].get("last_deployed", ""),
            status=release["info"].get("status", ""),
        )
    except (KeyError, TypeError, ValueError, zlib.error):
        return None


def newest(secrets: list[Object]) -> Record | None:
    """The latest revision that can be read."""
    records = [record for secret in secrets if (record := from_secret(secret)) is not None]
    return max(records, key=lambda record: record.revision, default=None)
