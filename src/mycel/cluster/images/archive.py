"""`docker save` and OCI archives → root folders: which images are inside, and unpacking their layers.

Unpacking happens in a child process that is locked into the target folder (chroot) first, so no path or link
of an archive reaches the machine.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from mycel.cluster.images.store import ImageStore, Loaded

# Imported now: tarfile asks for them when it meets such a layer, and then we are locked in.
_COMPRESSIONS = (bz2, gzip, lzma)
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_METADATA_LIMIT = 8 << 20


class ArchiveInvalid(Exception):
    """The file is no image archive we can read; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of an archive: its names, its configuration's file, its layers' files, bottom first."""

    references: list[str]
    config: str
    layers: list[str]


def load(archive: Path, store: ImageStore) -> list[str]:
    """Take every image of the archive in; returns their references. Raises ArchiveInvalid, OSError."""
    loaded: list[str] = []
    try:
        with tarfile.open(archive) as tar:
            for entry in entries(tar):
                loaded += _take(tar, entry, store)
    except tarfile.TarError as exc:
        reason = str(exc).partition(":")[0]  # tarfile adds a line for each compression it tried
        raise ArchiveInvalid(f"not a tar archive as docker save writes it: {reason}") from exc
    return loaded


def entries(tar: tarfile.TarFile) -> Iterator[Entry]:
    """What `manifest.json` (docker save) or `index.json` (OCI) lists. Raises ArchiveInvalid."""
    names = set(tar.getnames())
    if "manifest.json" in names:
        for item in _json(tar, "manifest.json"):
            yield Entry(list(item.get("RepoTags") or []), item["Config"], list(item["Layers"]))
        return
    if "index.json" not in names:
        raise ArchiveInvalid("there is neither manifest.json (docker save) nor index.json (OCI) inside")
    for item in _json(tar, "index.json").get("manifests") or []:
        annotations = item.get("annotations") or {}
        keys = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
        reference = next((annotations[key] for key in keys if key in annotations), "")
        manifest = _json(tar, _blob(item["digest"]))
        if "layers" not in manifest:
            raise ArchiveInvalid("the archive holds an index of several platforms: save one platform")
        layers = [_blob(layer["digest"]) for layer in manifest["layers"]]
        yield Entry([reference] if reference else [], _blob(manifest["config"]["digest"]), layers)


def _take(tar: tarfile.TarFile, entry: Entry, store: ImageStore) -> list[str]:
    if not entry.references:
        raise ArchiveInvalid("an image in the archive has no name: save it by its name, not by its id")
    raw = _read(tar, entry.config)
    digest = hashlib.sha256(raw).hexdigest()
    document: dict[str, Any] = msgspec.json.decode(raw)
    config: dict[str, Any] = document.get("config") or {}
    folder = store.folder / digest
    rootfs = folder / "rootfs"
    if not (folder / "image.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        rootfs.mkdir(parents=True)
        for layer in entry.layers:
            member = tar.extractfile(layer)
            if member is None:
                raise ArchiveInvalid(f"layer {layer} is missing in the archive")
            _unpack(member, rootfs)
    store.add(
        entry.references,
        Loaded(
            digest,
            tuple(config.get("Entrypoint") or ()),
            tuple(config.get("Cmd") or ()),
            dict(item.partition("=")[::2] for item in config.get("Env") or []),
            numeric_user(config.get("User") or "0", rootfs),
            config.get("WorkingDir") or "/",
        ),
    )
    return entry.references


def numeric_user(user: str, rootfs: Path) -> str:
    """`name:group` by the image's own files; the default group is the user's. Raises ArchiveInvalid."""
    name, _, group = user.partition(":")
    uid, gid = name, group
    for fields in _table(rootfs / "etc/passwd"):
        if len(fields) > 3 and name in (fields[0], fields[2]):
            uid, gid = fields[2], group or fields[3]
            break
    for fields in _table(rootfs / "etc/group"):
        if len(fields) > 2 and group and fields[0] == group:
            gid = fields[2]
    if not uid.isdigit() or (gid and not gid.isdigit()):
        raise ArchiveInvalid(f"user {user} of the image is not in its etc/passwd")
    return f"{uid}:{gid}" if gid else uid


def _table(path: Path) -> Iterator[list[str]]:
    if path.is_file() and path.resolve().is_relative_to(path.parents[1].resolve()):
        for line in path.read_text(errors="replace").splitlines():
            yield line.split(":")


def _unpack(source: IO[bytes], rootfs: Path) -> None:
    """One layer over what is there, in a child process inside `rootfs`. Raises ArchiveInvalid."""
    complaint_r, complaint_w = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chroot(rootfs)
            os.chdir("/")
            with tarfile.open(fileobj=source, mode="r|*") as layer:
                for member in layer:
                    apply_member(layer, member, Path("/"))
            os._exit(0)
        except BaseException:  # the parent must hear of anything; this process ends here
            os.write(complaint_w, traceback.format_exc()[-4000:].encode())
            os._exit(1)
    os.close(complaint_w)
    with os.fdopen(complaint_r, "rb") as pipe:
        complaint = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise ArchiveInvalid(f"a layer cannot be unpacked: {complaint.decode(errors='replace').splitlines()[-1]}")


def apply_member(layer: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    """One entry of a layer; whiteouts remove what lower layers brought."""
    path = root / member.name.lstrip("/")
    if path.name == _OPAQUE:
        for entry in path.parent.iterdir() if path.parent.is_dir() else ():
            _remove(entry)
        return
    if path.name.startswith(_WHITEOUT):
        _remove(path.with_name(path.name.removeprefix(_WHITEOUT)))
        return
    if path.is_symlink() or (path.exists() and not (path.is_dir() and member.isdir())):
        _remove(path)
    layer.extract(member, root, set_attrs=True, numeric_owner=True)


def _remove(path: Path) -> None:
    try:
        folder = stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return
    shutil.rmtree(path) if folder else path.unlink()


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    try:
        member = tar.extractfile(name)
    except KeyError as exc:
        raise ArchiveInvalid(f"{name} is missing in the archive") from exc
    data = member.read(_METADATA_LIMIT) if member else b""
    if not data or len(data) == _METADATA_LIMIT:
        raise ArchiveInvalid(f"{name} in the archive is empty or too large")
    return data


def _json(tar: tarfile.TarFile, name: str) -> Any:
    try:
        return msgspec.json.decode(_read(tar, name))
    except msgspec.MsgspecError as exc:
        raise ArchiveInvalid(f"{name} in the archive is not JSON: {exc}") from exc
