"""Ports of an Envoy that begins anew: who dials meanwhile is served by the next one, or refused; in real sockets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.clusters import ROOT

pytestmark = pytest.mark.root


def test_who_dials_meanwhile_waits_for_the_next_envoy() -> None:
    """Twenty connections made while nobody listens, and twenty around the change, are all answered by the next one."""
    command = ["unshare", "--net", sys.executable, "-m", "tests.envoy.held"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.stdout == "well\n", done.stderr
