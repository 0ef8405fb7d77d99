"""Image archives and the store of loaded images."""

import importlib.util
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from mycel.cluster.images import archive, catalog, rootfs
from mycel.cluster.images.archive import ArchiveInvalid
from mycel.cluster.images.store import ImageStore, Loaded, normal


def tar(files: dict[str, bytes | None]) -> bytes:
    """An archive of files; None makes a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data or b""), 0o755
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.uid, info.gid = os.getuid(), os.getgid()
            made.addfile(info, io.BytesIO(data or b""))
    return out.getvalue()


def docker_save(path: Path, layers: list[bytes], config: dict[str, object]) -> None:
    """An archive as `docker save` writes it."""
    names = [f"l{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": names}]
    files = {"manifest.json": json.dumps(manifest).encode(), "c.json": json.dumps({"config": config}).encode()}
    path.write_bytes(tar({**files, **dict(zip(names, layers, strict=True))}))


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("app", "docker.io/library/app:latest"),
        ("me/app:2", "docker.io/me/app:2"),
        ("quay.io/x/y", "quay.io/x/y:latest"),
        ("localhost:5000/a:b", "localhost:5000/a:b"),
        ("a@sha256:00", "docker.io/library/a@sha256:00"),
    ],
)
def test_short_names_stand_for_full_ones(short: str, full: str) -> None:
    """As container runtimes read them."""
    assert normal(short) == full


def test_a_store_finds_what_was_added(tmp_path: Path) -> None:
    """By any spelling of its name; a second process sees it too."""
    store = ImageStore(tmp_path)
    assert store.find("app:1") is None
    (tmp_path / "d" / "rootfs").mkdir(parents=True)
    store.add(["app:1"], Loaded("d", entrypoint=("/app",), env={"A": "b"}, user="7:8"))
    found = ImageStore(tmp_path).find("docker.io/library/app:1")
    assert found is not None
    assert (found[0].entrypoint, found[0].env, found[0].user, found[1]) == (
        ("/app",),
        {"A": "b"},
        "7:8",
        tmp_path / "d/rootfs",
    )


def test_users_by_name(tmp_path: Path) -> None:
    """From the image's own files, never the machine's."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("web:x:33:44::/:/bin/sh\n")
    (tmp_path / "etc/group").write_text("staff:x:50:\n")
    assert archive.numeric_user("web", tmp_path) == "33:44"
    assert archive.numeric_user("web:staff", tmp_path) == "33:50"
    assert archive.numeric_user("1000", tmp_path) == "1000"
    with pytest.raises(ArchiveInvalid, match="ghost"):
        archive.numeric_user("ghost", tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a tar", tar({"x": b"y"}), tar({"manifest.json": b"{"})])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """With a sentence."""
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(ArchiveInvalid):
        archive.load(path, ImageStore(tmp_path / "images"))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="unpacking locks itself in with chroot")
def test_layers_are_laid_over_each_other_and_stay_inside(tmp_path: Path) -> None:
    """Whiteouts remove, opaque folders are emptied, links that point out do not lead out."""
    first = tar({"etc": None, "etc/a": b"1", "etc/b": b"2", "d": None, "d/old": b"x", str(tmp_path).lstrip("/"): None})
    second = tar({"etc/.wh.a": b"", "d/.wh..wh..opq": b"", "d/new": b"y"})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        made.addfile(link)
        evil = tarfile.TarInfo("out/escaped")
        evil.size = 1
        made.addfile(evil, io.BytesIO(b"!"))
    path = tmp_path / "a.tar"
    docker_save(path, [first, second, out.getvalue()], {"Cmd": ["/bin/sh"], "WorkingDir": "/d"})
    store = ImageStore(tmp_path / "images")
    assert archive.load(path, store) == ["app:1"]
    found = store.find("app:1")
    assert found is not None
    image, rootfs = found
    assert (image.arguments, image.workdir) == (("/bin/sh",), "/d")
    assert sorted(str(item.relative_to(rootfs)) for item in rootfs.glob("[de]*/*")) == ["d/new", "etc/b"]
    assert (rootfs / str(tmp_path).lstrip("/") / "escaped").exists(), (
        "the link leads to the image's own folder of that name"
    )
    assert not (tmp_path / "escaped").exists()


def test_every_command_of_every_image_exists() -> None:
    """A link to a program this machine's packages bring, or a module of ours that can be run."""
    for name in catalog.known():
        image = catalog.find(name)
        assert image is not None
        for command in (*image.commands.values(), *image.paths.values()):
            if command.module:
                assert importlib.util.find_spec(command.module) is not None, command.module
                assert rootfs.script(command).startswith("#!/bin/sh\nexec ")
            else:
                assert command.program.startswith("/usr/bin/")
