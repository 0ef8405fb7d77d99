"""The real kubectls of this machine, by the version each says it is.

Looked for on PATH (also as `kubectl.1.N`, which dispatching kubectls keep beside themselves) and in `build/kubectl`,
where `scripts/test` unpacks Debian's. Of all found, the newest up to 1.32 and the oldest are used: they differ in
discovery, validation and streaming.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEWEST = (1, 32)


@functools.cache
def kubectls() -> dict[str, str]:
    """Version such as `1.32` → path."""
    found: dict[tuple[int, int], str] = {}
    for place in _places():
        version = _version(place)
        if version is not None and version <= NEWEST:
            found.setdefault(version, str(place))
    chosen = {min(found), max(found)} if found else set[tuple[int, int]]()
    return {f"{major}.{minor}": found[major, minor] for major, minor in sorted(chosen)}


def _places() -> list[Path]:
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(":") if folder]
    on_path = [folder / "kubectl" for folder in folders]
    beside = [other for place in on_path if place.exists() for other in place.resolve().parent.glob("kubectl.1.*")]
    places = [*beside, *on_path, ROOT / "build" / "kubectl" / "usr" / "bin" / "kubectl"]
    return [place for place in places if os.access(place, os.X_OK)]


def _version(place: Path) -> tuple[int, int] | None:
    said = subprocess.run([place, "version", "--client", "-o", "json"], capture_output=True, text=True, check=False)
    try:
        version = json.loads(said.stdout)["clientVersion"]
        return int(version["major"]), int(version["minor"].rstrip("+"))
    except (ValueError, KeyError):
        return None
