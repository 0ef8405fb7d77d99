"""Where the chart and the CustomResourceDefinitions are: beside the sources, which images carry whole."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]


def chart_dir() -> Path:
    """The Helm chart, `deploy/chart`. Raises FileNotFoundError."""
    chart = _ROOT / "deploy" / "chart"
    if not (chart / "Chart.yaml").is_file():
        raise FileNotFoundError(f"{chart} is missing: run mycel from its source tree, where scripts/setup installed it")
    return chart


def crds_dir() -> Path:
    """The CustomResourceDefinitions, one per `*.yaml` file."""
    return chart_dir() / "crds"
