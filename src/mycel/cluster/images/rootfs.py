"""A container's root folder from an image's spec: a few links and files; the machine's /usr is mounted over it by
the bundle.

Made anew for every container (about thirty entries, 1 ms), so nothing has to be mounted or cleaned up but the
folder itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mycel.cluster.images.catalog import Command, Image

_FOLDERS = (
    "proc",
    "sys",
    "dev",
    "etc",
    "etc/ssl",
    "etc/alternatives",
    "var",
    "var/log",
    "home",
    "root",
    "opt/mycel/bin",
    "usr",
    "mnt",
    "srv",
    "run",
)
_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "var/run": "../run",
    "lib32": "usr/lib32",
}
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"  # noqa: S105
_GROUP = "root:x:0:\nnogroup:x:65534:\n"
# Machine folders and files that make its programs work inside: mounted read-only at the same place.
SHARED = ("/usr", "/etc/alternatives", "/etc/ssl", "/etc/ld.so.cache")


def build(image: Image, root: Path) -> None:
    """Fill the empty (or missing) folder `root`."""
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        place = root / name
        place.mkdir(exist_ok=True)
        place.chmod(0o1777)
    for name, target in _LINKS.items():
        if Path("/", name).exists() or name == "var/run":
            (root / name).symlink_to(target)
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text(_GROUP)
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    for name in ("hosts", "hostname", "resolv.conf", "ld.so.cache"):
        (root / "etc" / name).touch()
    for name, command in image.commands.items():
        _install(root / "opt/mycel/bin" / name, command)
    for path, command in image.paths.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        _install(place, command)


def own_layers(image: Image) -> set[str]:
    """The shared folders in which the image has files of its own: there both have to be seen."""
    return {shared for shared in SHARED for path in image.paths if path.startswith(f"{shared}/")}


def _install(place: Path, command: Command) -> None:
    if command.program:
        known = Path(command.program).exists() or not command.fallback
        place.symlink_to(command.program if known else command.fallback)
        return
    place.write_text(script(command))
    place.chmod(0o755)


def script(command: Command) -> str:
    """A small shell script that becomes the module; light ones skip site packages, which halves their start-up."""
    python = sys.executable
    if command.light:
        source = Path(__file__).parents[3]
        start = f"import sys; sys.path.insert(0, {str(source)!r}); from {command.module} import main; sys.exit(main())"
        return f'#!/bin/sh\nexec {os.path.realpath(python)} -I -S -c "{start}" "$@"\n'
    words = " ".join(("", *command.words))
    return f'#!/bin/sh\nexec {python} -m {command.module}{words} "$@"\n'
