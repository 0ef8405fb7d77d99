"""The user's kubeconfig: our context goes in at create and out at delete; everything else in the file stays as it
was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from mycel.cluster.lifecycle.errors import LifecycleError
from mycel.cluster.lifecycle.record import write_atomic


def user_file() -> Path:
    """Where kubectl would write: the first file of $KUBECONFIG, else ~/.kube/config."""
    for part in os.environ.get("KUBECONFIG", "").split(os.pathsep):
        if part:
            return Path(part).absolute()
    return Path.home() / ".kube" / "config"


def merge(existing: dict[str, Any] | None, ours: dict[str, Any]) -> dict[str, Any]:
    """`existing` with our entries in place of older ones of the same names, and our context current."""
    result: dict[str, Any] = dict(existing) if existing else {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    for section in ("clusters", "users", "contexts"):
        names = {entry["name"] for entry in ours[section]}
        kept = [entry for entry in result.get(section) or [] if entry.get("name") not in names]
        result[section] = [*kept, *ours[section]]
    result["current-context"] = ours["current-context"]
    return result


def without(existing: dict[str, Any], context: str) -> dict[str, Any]:
    """`existing` without the entries called `context`."""
    result = dict(existing)
    for section in ("clusters", "users", "contexts"):
        result[section] = [entry for entry in result.get(section) or [] if entry.get("name") != context]
    if result.get("current-context") == context:
        result["current-context"] = ""
    return result


def install(path: Path, ours: dict[str, Any]) -> None:
    """Merge into the file. Raises LifecycleError when what is there is not a kubeconfig."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(path, merge(_read(path), ours))


def uninstall(path: Path, context: str) -> None:
    """Take the context out of the file; a file that held nothing else goes."""
    existing = _read(path)
    if existing is None:
        return
    left = without(existing, context)
    if any(left.get(section) for section in ("clusters", "users", "contexts")):
        _write(path, left)
    else:
        path.unlink()


def dump(data: dict[str, Any]) -> bytes:
    """As YAML."""
    return yaml.dump(data, Dumper=yaml.CSafeDumper, sort_keys=False).encode()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data: Any = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError) as exc:
        raise LifecycleError(f"cannot read kubeconfig {path}: {exc}; mend it or point KUBECONFIG elsewhere") from exc
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise LifecycleError(f"kubeconfig {path} is not a mapping; mend it or point KUBECONFIG elsewhere")
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    write_atomic(path.resolve(), dump(data), mode=0o600)
