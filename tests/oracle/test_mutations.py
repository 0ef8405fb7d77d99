"""The comparison with the model sees every seeded bug of the compiler, so that its silence means something."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.oracle.harness import FOUND
from tests.oracle.mutations import MUTATIONS, PUBLISHED, Mutation

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "mycel"
COPIED = ("policy", "identity")
FIRST_SEED, STATES = 1, 400


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A product whose rooms with policy are copies; all others are the real ones."""
    product = tmp_path / "mycel"
    product.mkdir()
    for room in SOURCE.iterdir():
        if room.name in COPIED:
            shutil.copytree(room, product / room.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif room.name != "__pycache__":
            (product / room.name).symlink_to(room)
    return product


def _compare(product: Path, states: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(product.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.oracle.harness", str(FIRST_SEED), str(states), "find"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_seeded_bug_is_seen(mutation: Mutation, copy: Path) -> None:
    """By another answer than the model's: a crash would be no proof."""
    modules = [module for room in COPIED for module in (copy / room).rglob("*.py")]
    for old, new in mutation.edits:
        holding = [module for module in modules if old in module.read_text()]
        assert len(holding) == 1, f"the compiler has changed: write the bug {mutation.name!r} anew ({holding})"
        text = holding[0].read_text()
        assert text.count(old) == 1, f"{holding[0].name} has it twice: write the bug {mutation.name!r} anew"
        holding[0].write_text(text.replace(old, new))
    done = _compare(copy, STATES)
    assert done.returncode == FOUND, f"{mutation.name}: not seen in {STATES} states\n{done.stdout}{done.stderr[-2000:]}"


def test_the_copy_itself_is_right(copy: Path) -> None:
    """What the bugs are seen against: no difference without them, and it is the copy that answers."""
    done = _compare(copy, 60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (copy / "policy" / "__init__.py").write_text("raise ImportError('the copy')\n")
    assert "ImportError: the copy" in _compare(copy, 1).stderr


def test_there_are_enough() -> None:
    """Forty at least, with one for every published failure of translation."""
    assert len(MUTATIONS) >= 40
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert len({mutation.because for mutation in PUBLISHED}) == len(PUBLISHED) == 13
