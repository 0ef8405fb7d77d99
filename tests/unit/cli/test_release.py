"""Helm's record of a release, and the mesh's certificates."""

from __future__ import annotations

import base64
import datetime
import gzip
import json

import pytest
from cryptography import x509

from mycel.cli.mesh.certificates import KeyPair, make_authority, make_hubble_server
from mycel.cli.mesh.release import Record, from_secret, newest, to_secret

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
MANIFEST = """---
# Source: a
kind: ConfigMap
metadata:
  name: c
  namespace: n
---
kind: ClusterRole
metadata: {name: r}
"""


def record(revision: int = 1) -> Record:
    return Record(
        revision=revision,
        namespace="kube-system",
        values={"debug": {"enabled": True}},
        manifest=MANIFEST,
        chart={"apiVersion": "v2", "name": "cilium", "version": "1.19.4", "appVersion": "1.19.4"},
        first_deployed="2026-01-01T00:00:00Z",
        last_deployed="2026-01-01T00:00:00Z",
    )


def test_secret_as_helm_reads_it() -> None:
    secret = to_secret(record(3))
    assert secret["metadata"]["name"] == "sh.helm.release.v1.cilium.v3"
    assert secret["metadata"]["labels"] == {"name": "cilium", "owner": "helm", "status": "deployed", "version": "3"}
    assert secret["type"] == "helm.sh/release.v1"
    release = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))))
    assert (release["name"], release["version"], release["info"]["status"]) == ("cilium", 3, "deployed")
    assert release["chart"]["metadata"]["version"] == "1.19.4"


def test_round_trip() -> None:
    assert from_secret(to_secret(record())) == record()


def test_objects_of_a_manifest() -> None:
    assert record().objects == {("ConfigMap", "n", "c"), ("ClusterRole", "", "r")}


@pytest.mark.parametrize("data", [{}, {"release": "x"}, {"release": base64.b64encode(b"eA==").decode()}])
def test_unreadable_secrets_are_passed_over(data: dict[str, str]) -> None:
    assert from_secret({"data": data}) is None
    assert newest([{"data": data}, to_secret(record(2)), to_secret(record(1))]) == record(2)


def test_certificates() -> None:
    authority = make_authority(NOW)
    server = make_hubble_server(authority, "default", NOW)
    ca = x509.load_pem_x509_certificate(base64.b64decode(authority.certificate))
    leaf = x509.load_pem_x509_certificate(base64.b64decode(server.certificate))
    leaf.verify_directly_issued_by(ca)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["*.default.hubble-grpc.cilium.io"]
    assert leaf.not_valid_before_utc <= NOW < leaf.not_valid_after_utc


def test_keys_do_not_show() -> None:
    assert "secret" not in repr(KeyPair("certificate", "secret"))
