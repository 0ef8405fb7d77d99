"""T0: the rows the product compiles, looked up as the kernel does, say what the model says. Zero differences."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from tests.oracle.generate import Options, state
from tests.oracle.harness import Difference, compare, shrink

FIRST_SEED = int(os.environ.get("MYCEL_ORACLE_SEED", "1"))
CI_STATES = 1250
LONG_STATES = 5000
OPTIONS = Options(flows=200)


def _chunk(seeds: range) -> tuple[int, list[Difference]]:
    return compare(seeds, OPTIONS)


def _run(states: int) -> tuple[int, list[Difference]]:
    """Compare `states` states on all cores; returns verdicts and a few differences, lowest seed first."""
    workers = len(os.sched_getaffinity(0))
    size = max(1, states // (workers * 8))
    chunks = [range(at, min(at + size, FIRST_SEED + states)) for at in range(FIRST_SEED, FIRST_SEED + states, size)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        results = pool.map(_chunk, chunks, chunksize=1)
    return sum(asked for asked, _ in results), [found for _, several in results for found in several]


def _show(asked: int, found: list[Difference], folder: Path) -> None:
    print(f"T0: seeds {FIRST_SEED}…, {asked} verdicts, {len(found)} states differ")
    if not found:
        return
    shown = str(shrink(found[0]))
    (folder / "difference.yaml").write_text(shown)
    seeds = sorted({difference.state.seed for difference in found})
    pytest.fail(f"model and product disagree, seeds {seeds[:20]}; the first, shrunk:\n{shown}", pytrace=False)


def test_a_quarter_of_a_million_verdicts(tmp_path: Path) -> None:
    """250,000 verdicts over 1,250 random clusters and policy sets."""
    asked, found = _run(CI_STATES)
    _show(asked, found, tmp_path)
    assert asked == CI_STATES * OPTIONS.flows


@pytest.mark.long
def test_a_million_verdicts(tmp_path: Path) -> None:
    """A million verdicts over 5,000 states."""
    asked, found = _run(LONG_STATES)
    _show(asked, found, tmp_path)
    assert asked == LONG_STATES * OPTIONS.flows


def test_states_are_plain_and_repeatable() -> None:
    """A seed is one state, and JSON keeps all of it."""
    made = state(7, OPTIONS)
    assert state(7, OPTIONS) == made
    assert json.loads(json.dumps(made)) == list(made)
