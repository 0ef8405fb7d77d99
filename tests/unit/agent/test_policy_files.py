"""The kept versions of policies that became invalid."""

from __future__ import annotations

from pathlib import Path

from mycel.agent.policy_files import PolicyFiles
from mycel.policy.engine import PolicyKeyRef

KEY = PolicyKeyRef("CiliumNetworkPolicy", "shop", "db")
MANIFEST = {"kind": "CiliumNetworkPolicy", "metadata": {"name": "db", "uid": "u-1"}, "spec": {"ingress": []}}


def test_kept_for_the_same_object_only(tmp_path: Path) -> None:
    """Another object of the name has another uid, and must not get the old one's rules."""
    files = PolicyFiles(tmp_path / "policies")
    assert files.load(KEY, "u-1") is None
    files.save(KEY, MANIFEST)
    assert files.load(KEY, "u-1") == MANIFEST
    assert files.load(KEY, "u-2") is None
    assert files.load(KEY._replace(namespace="bank"), "u-1") is None
    files.remove(KEY)
    files.remove(KEY)
    assert files.load(KEY, "u-1") is None


def test_a_broken_file_is_none(tmp_path: Path) -> None:
    """It is named in the log, and nothing stops."""
    files = PolicyFiles(tmp_path)
    files.save(KEY, MANIFEST)
    (file,) = tmp_path.glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("{")
    assert files.load(KEY, "u-1") is None
