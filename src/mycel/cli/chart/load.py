"""The chart on disk → Kubernetes objects, in the order they have to be made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mycel.cli.chart.evaluate import Renderer
from mycel.cli.chart.template import Template, TemplateError, parse
from mycel.cli.chart.values import Values, check, merge

Object = dict[str, Any]

# Helm's order of kinds (pkg/release/util/kind_sorter.go), as far as we have them.
_ORDER = (
    "Namespace",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "DaemonSet",
    "Deployment",
    "IngressClass",
)


@dataclass(frozen=True, slots=True)
class Release:
    """What a template sees as `.Release`."""

    name: str
    namespace: str
    revision: int = 1

    @property
    def as_values(self) -> Values:
        """With Helm's field names."""
        return {
            "Name": self.name,
            "Namespace": self.namespace,
            "Service": "Helm",
            "Revision": self.revision,
            "IsInstall": self.revision == 1,
            "IsUpgrade": self.revision > 1,
        }


@dataclass(frozen=True, slots=True)
class Rendered:
    """Objects in the order to create them, and the text Helm would keep as the release's manifest."""

    objects: tuple[Object, ...]
    manifest: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart read from disk."""

    metadata: Values
    defaults: Values
    schema: Values
    templates: tuple[Template, ...]
    crds: tuple[Object, ...]

    def values(self, over: Mapping[str, Any]) -> Values:
        """Defaults with `over` on top, checked. Raises ValuesError."""
        merged = merge(self.defaults, over)
        check(merged, self.schema)
        return merged

    def render(self, values: Values, release: Release) -> Rendered:
        """All objects of the chart but the CRDs. Raises TemplateError."""
        data = {"Values": values, "Release": release.as_values, "Chart": _chart_fields(self.metadata)}
        renderer = Renderer(self.templates)
        found: list[tuple[str, Object]] = []
        for template in self.templates:
            if Path(template.name).name.startswith("_"):
                continue
            text = renderer.render(template.name, data)
            found += [(template.name, item) for item in _objects(template.name, text)]
        found.sort(key=lambda pair: _rank(pair[1]))
        manifest = "".join(f"---\n# Source: {name}\n{_dump(item)}" for name, item in found)
        return Rendered(tuple(item for _, item in found), manifest)


def load_chart(directory: Path) -> Chart:
    """Read a chart. Raises TemplateError and OSError."""
    metadata = _yaml(directory / "Chart.yaml")
    files = sorted((directory / "templates").glob("*.*"))
    return Chart(
        metadata=metadata,
        defaults=_yaml(directory / "values.yaml"),
        schema=json.loads((directory / "values.schema.json").read_text()),
        templates=tuple(
            parse(f"{metadata['name']}/templates/{file.name}", file.read_text())
            for file in files
            if file.suffix in {".yaml", ".tpl"}
        ),
        crds=load_crds(directory / "crds"),
    )


def load_crds(directory: Path) -> tuple[Object, ...]:
    """The CustomResourceDefinitions of a chart, by file name."""
    return tuple(_yaml(file) for file in sorted(directory.glob("*.yaml")))


def _chart_fields(metadata: Values) -> Values:
    """Helm spells the fields of Chart.yaml with a capital."""
    return {key[0].upper() + key[1:]: value for key, value in metadata.items()}


def _yaml(path: Path) -> Any:
    with path.open() as file:
        return yaml.load(file, Loader=yaml.CSafeLoader)


def _objects(name: str, text: str) -> Iterable[Object]:
    try:
        documents = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError as exc:
        raise TemplateError(f"{name} does not render to YAML: {exc}") from exc
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, dict) or "kind" not in document:
            raise TemplateError(f"{name} renders to something that is no Kubernetes object: {document!r}")
        yield document


def _rank(item: Object) -> tuple[int, str, str]:
    kind = item["kind"]
    rank = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    return rank, kind, item["metadata"]["name"]


def _dump(item: Object) -> str:
    dumped: str = yaml.dump(item, default_flow_style=False, sort_keys=False, width=2**31)
    return dumped
