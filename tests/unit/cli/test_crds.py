"""The definitions: the names people type, and schemas that are structural."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mycel.cli.chart.load import load_crds
from mycel.kit.deploy import crds_dir

CRDS = {item["spec"]["names"]["kind"]: item for item in load_crds(crds_dir())}


@pytest.mark.parametrize(
    ("kind", "short", "versions", "scope"),
    [
        ("CiliumNetworkPolicy", "cnp", ["v2"], "Namespaced"),
        ("CiliumClusterwideNetworkPolicy", "ccnp", ["v2"], "Cluster"),
        ("CiliumEndpoint", "cep", ["v2"], "Namespaced"),
        ("CiliumIdentity", "ciliumid", ["v2"], "Cluster"),
        ("CiliumNode", "cn", ["v2"], "Cluster"),
        ("CiliumEnvoyConfig", "cec", ["v2"], "Namespaced"),
        ("CiliumClusterwideEnvoyConfig", "ccec", ["v2"], "Cluster"),
        ("CiliumExternalWorkload", "cew", ["v2"], "Cluster"),
        ("CiliumCIDRGroup", "ccg", ["v2", "v2alpha1"], "Cluster"),
        ("CiliumLoadBalancerIPPool", "ippools", ["v2", "v2alpha1"], "Cluster"),
        ("CiliumL2AnnouncementPolicy", "l2announcement", ["v2alpha1"], "Cluster"),
        ("CiliumLocalRedirectPolicy", "clrp", ["v2"], "Namespaced"),
        ("CiliumEgressGatewayPolicy", "cegp", ["v2"], "Cluster"),
    ],
)
def test_names(kind: str, short: str, versions: list[str], scope: str) -> None:
    spec = CRDS[kind]["spec"]
    assert short in spec["names"]["shortNames"]
    assert [version["name"] for version in spec["versions"]] == versions
    assert (spec["scope"], spec["group"]) == (scope, "cilium.io")
    assert [version["storage"] for version in spec["versions"]].count(True) == 1


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_schemas_are_structural(kind: str) -> None:
    """Every value has a type, and logic (anyOf, oneOf) adds none: what the API server asks of apiextensions/v1."""
    broken: list[str] = []

    def walk(schema: dict[str, Any], path: str) -> None:
        if "type" not in schema and not schema.get("x-kubernetes-int-or-string"):
            broken.append(f"{path}: no type")
        if "properties" in schema and "additionalProperties" in schema:
            broken.append(f"{path}: both properties and additionalProperties")
        for word in ("anyOf", "oneOf"):
            for branch in schema.get(word, ()):
                allowed = {"required", "properties"} | ({"type"} if schema.get("x-kubernetes-int-or-string") else set())
                if set(branch) - allowed:
                    broken.append(f"{path}: {word} says more than required and properties")
        if "pattern" in schema:
            re.compile(schema["pattern"])
        for name, inner in schema.get("properties", {}).items():
            walk(inner, f"{path}.{name}")
        for name in schema.get("required", ()):
            if name not in schema["properties"]:
                broken.append(f"{path}: requires {name}, which it does not know")
        if "items" in schema:
            walk(schema["items"], f"{path}[]")
        if isinstance(schema.get("additionalProperties"), dict):
            walk(schema["additionalProperties"], f"{path}{{}}")

    for version in CRDS[kind]["spec"]["versions"]:
        walk(version["schema"]["openAPIV3Schema"], kind)
    assert broken == []


def _rule() -> dict[str, Any]:
    schema = CRDS["CiliumNetworkPolicy"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema["properties"]["spec"]


@pytest.mark.parametrize(
    ("port", "good"),
    [
        ("80", True), ("0", True), ("65535", True), ("http", True), ("http-8080", True),
        ("65536", False), ("99999", False), ("80a!", False), ("-1", False), ("a--b", False), ("", False),
    ],
)  # fmt: skip
def test_ports(port: str, good: bool) -> None:
    ports = _rule()["properties"]["egress"]["items"]["properties"]["toPorts"]["items"]["properties"]["ports"]
    pattern = ports["items"]["properties"]["port"]["pattern"]
    assert bool(re.search(pattern, port)) == good


@pytest.mark.parametrize(
    ("name", "good"),
    [("example.com", True), ("example.com.", True), ("a_b.c", True), ("*.x", False), ("a..b", False), ("", False)],
)
def test_names_of_hosts(name: str, good: bool) -> None:
    fqdn = _rule()["properties"]["egress"]["items"]["properties"]["toFQDNs"]["items"]["properties"]
    assert bool(re.search(fqdn["matchName"]["pattern"], name)) == good


def test_patterns_of_hosts() -> None:
    fqdn = _rule()["properties"]["egress"]["items"]["properties"]["toFQDNs"]["items"]["properties"]
    pattern = fqdn["matchPattern"]["pattern"]
    assert [bool(re.search(pattern, text)) for text in ("*", "*.x", "a*.b.", "x y", "a..b")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_denials_have_no_layer_seven() -> None:
    deny = _rule()["properties"]["egressDeny"]["items"]["properties"]
    assert "rules" not in deny["toPorts"]["items"]["properties"]
    assert "toFQDNs" not in deny


def test_files_are_what_the_generator_writes() -> None:
    tool = Path(__file__).resolve().parents[3] / "tools" / "gen_crds.py"
    ran = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
