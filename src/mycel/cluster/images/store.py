"""Images a person brought along: `images/index.json` (reference → digest) and `images/<digest>/{image.json,rootfs}`.

Written by `mycel cluster load-image`, read by node programs; they win over built-in stand-ins of the same name.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from mycel.cluster.images.catalog import Image
from mycel.cluster.lifecycle.record import write_atomic


class Loaded(msgspec.Struct, frozen=True):
    """One image's configuration, as `image.json` keeps it. `user` is numeric: `uid` or `uid:gid`."""

    digest: str
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    env: dict[str, str] = {}
    user: str = "0"
    workdir: str = "/"


class ImageStore:
    """The folder of loaded images. Reading is cheap: the index is parsed again only when it changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen = 0
        self._index: dict[str, str] = {}

    def index(self) -> dict[str, str]:
        """Reference → digest."""
        path = self.folder / "index.json"
        try:
            changed = path.stat().st_mtime_ns
            if changed != self._seen:
                self._index = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
                self._seen = changed
        except (FileNotFoundError, msgspec.MsgspecError):
            self._index, self._seen = {}, 0
        return self._index

    def find(self, reference: str) -> tuple[Image, Path] | None:
        """The image and its root folder, or None."""
        digest = self.index().get(normal(reference))
        if digest is None:
            return None
        path = self.folder / digest / "image.json"
        loaded = msgspec.json.decode(path.read_bytes(), type=Loaded)
        image = Image(
            digest[:12], loaded.entrypoint, loaded.arguments, loaded.env, loaded.user, loaded.workdir
        )  # fmt: skip
        return image, self.folder / digest / "rootfs"

    def add(self, references: list[str], loaded: Loaded) -> None:
        """Name an image whose root folder is in place."""
        write_atomic(self.folder / loaded.digest / "image.json", msgspec.json.encode(loaded), mode=0o644)
        index = dict(self.index()) | {normal(reference): loaded.digest for reference in references}
        write_atomic(self.folder / "index.json", msgspec.json.format(msgspec.json.encode(index)), mode=0o644)


def normal(reference: str) -> str:
    """The full name a short one stands for: `app` is `docker.io/library/app:latest`."""
    name, _, digest = reference.partition("@")
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}" if slash else f"docker.io/library/{name}"
        rest = name.partition("/")[2]
    if digest:
        return f"{name}@{digest}"
    return name if ":" in rest.rpartition("/")[2] else f"{name}:latest"
