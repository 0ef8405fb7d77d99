"""Writes deploy/chart/crds/*.yaml from tools/crds; `--check` fails when they are stale. Run: make gen"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from crds.kinds import KINDS, Column, Kind

TARGET = Path(__file__).resolve().parents[1] / "deploy" / "chart" / "crds"
HEADER = "# Generated from tools/crds by tools/gen_crds.py: edit there, then `make gen`.\n"
# Raised with every change of a schema: an operator replaces definitions of an older one and keeps newer ones.
SCHEMA_VERSION = "1.0.0"


class _Dumper(yaml.SafeDumper):
    """Without anchors: a schema used twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def definition(kind: Kind) -> dict[str, Any]:
    """The whole CustomResourceDefinition."""
    singular = kind.kind.lower()
    names: dict[str, Any] = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": singular,
        "categories": list(kind.categories),
    }
    if kind.short:
        names["shortNames"] = list(kind.short)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.cilium.io",
            "labels": {"app.kubernetes.io/part-of": "cilium", "mycel.dev/schema-version": SCHEMA_VERSION},
        },
        "spec": {
            "group": "cilium.io",
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [_version(kind, name, stored=name == kind.versions[0]) for name in kind.versions],
        },
    }


def _version(kind: Kind, name: str, *, stored: bool) -> dict[str, Any]:
    version: dict[str, Any] = {
        "name": name,
        "served": True,
        "storage": stored,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": kind.schema},
    }
    if kind.has_status:
        version["subresources"] = {"status": {}}
    return version


def _column(column: Column) -> dict[str, Any]:
    name, type_, path, *priority = column
    made: dict[str, Any] = {"name": name, "type": type_, "jsonPath": path}
    return made | {"priority": priority[0]} if priority else made


def main() -> int:
    """Write, or compare and say what is stale."""
    wanted = {
        f"{kind.plural}.yaml": HEADER
        + yaml.dump(definition(kind), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
        for kind in KINDS
    }
    present = {path.name: path.read_text() for path in TARGET.glob("*.yaml")}
    if "--check" in sys.argv[1:]:
        stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
        for name in stale:
            print(f"{TARGET / name} is stale: run make gen", file=sys.stderr)
        return 1 if stale else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in present.keys() - wanted.keys():
        (TARGET / name).unlink()
    for name, text in wanted.items():
        if present.get(name) != text:
            (TARGET / name).write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
