"""Projected files on disk."""

from pathlib import Path

import pytest

from mycel.cluster.node import payload, volumes
from mycel.cluster.node.errors import VolumeError
from mycel.cluster.node.payload import File


def test_files_change_together_and_stale_ones_go(tmp_path: Path) -> None:
    """Through ..data; an equal payload writes nothing."""
    assert payload.write(tmp_path, {"a": File(b"1", 0o644), "d/b": File(b"2", 0o400)})
    before = (tmp_path / "..data").readlink()
    assert not payload.write(tmp_path, {"a": File(b"1", 0o644), "d/b": File(b"2", 0o400)})
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "d/b").read_bytes()) == (b"1", b"2")
    assert (tmp_path / "d/b").stat().st_mode & 0o777 == 0o400
    assert payload.write(tmp_path, {"c": File(b"3", 0o644)})
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("..")) == ["c"]
    assert not (tmp_path / before).exists()


def test_items_choose_and_rename() -> None:
    """A missing key is an error unless optional."""
    data = {"k": b"v"}
    assert payload.select(
        data, [{"key": "k", "path": "x/y", "mode": 0o600}], mode=0o644, optional=False, what="configmap"
    ) == {"x/y": File(b"v", 0o600)}
    with pytest.raises(VolumeError, match="nope"):
        payload.select(data, [{"key": "nope", "path": "x"}], mode=0o644, optional=False, what="configmap")
    assert payload.select(data, [{"key": "nope", "path": "x"}], mode=0o644, optional=True, what="configmap") == {}


@pytest.mark.parametrize("path", ["/a", "../a", "a/../../b", "..data", ""])
def test_paths_stay_inside(path: str) -> None:
    """Absolute and climbing paths are refused."""
    with pytest.raises(VolumeError):
        payload.clean(path)


def test_sub_paths_do_not_follow_links_out(tmp_path: Path) -> None:
    """A link planted in a volume must not open the node."""
    base = tmp_path / "vol"
    base.mkdir()
    (base / "out").symlink_to("/etc")
    (base / "in").symlink_to("real")
    (base / "real").mkdir()
    with pytest.raises(VolumeError):
        volumes.sub_path(base, "out")
    assert volumes.sub_path(base, "in") == base / "real"
    assert volumes.sub_path(base, "new/dir").is_dir()
