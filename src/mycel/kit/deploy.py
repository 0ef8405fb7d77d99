"""Where the chart and the CustomResourceDefinitions are: beside the source tree, or inside a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def chart_dir() -> Path:
    """The Helm chart: `deploy/chart` of the source tree, or a wheel's copy. Raises FileNotFoundError."""
    for place in (_PACKAGE.parents[1] / "deploy" / "chart", _PACKAGE / "_deploy" / "chart"):
        if (place / "Chart.yaml").is_file():
            return place
    raise FileNotFoundError(f"deploy/chart is missing beside {_PACKAGE}: this installation of mycel is incomplete")


def crds_dir() -> Path:
    """The CustomResourceDefinitions, one per `*.yaml` file."""
    return chart_dir() / "crds"
