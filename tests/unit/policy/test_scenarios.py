"""tests/scenarios: manifests, flows and what becomes of them, as people read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mycel.policy import evaluate_manifests
from tests.unit.policy.worlds import end

FOLDER = Path(__file__).parents[2] / "scenarios"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_scenario(path: Path) -> None:
    """Every line of its flows."""
    scenario: dict[str, Any] = yaml.safe_load(path.read_text())
    lines = [line.split(maxsplit=4) for line in scenario["flows"].splitlines()]
    flows = []
    for source, destination, what, *_ in lines:
        port, protocol = what.split("/")
        flows.append({"from": end(source), "to": end(destination), "protocol": protocol, "port": int(port)})
    found = []
    for flow, line in zip(evaluate_manifests(scenario["manifests"], flows), lines, strict=True):
        why = [
            f"{way} {flow[way]['reason']} {', '.join(flow[way]['rules'])}"
            for way in ("egress", "ingress")
            if flow[way]["verdict"] == "denied"
        ]
        found.append([*line[:3], flow["verdict"], *why[:1]])  # where it is denied first
    assert found == lines


def test_there_are_scenarios() -> None:
    """An empty folder tests nothing."""
    assert FILES
