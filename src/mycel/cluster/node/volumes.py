"""A pod's volumes on the node: folders, tmpfs mounts, host paths, and the payload volumes of `payload`."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from mycel.cluster import linux
from mycel.cluster.node import env, payload, quantity
from mycel.cluster.node.bundle import Bind, propagation
from mycel.cluster.node.errors import VolumeError
from mycel.cluster.node.names import Object, PodFiles
from mycel.cluster.node.objects import Objects
from mycel.cluster.node.payload import File, Payload

_DEFAULT_MODE = 0o644
_PAYLOAD_KINDS = ("configMap", "secret", "downwardAPI", "projected")
_DIRECTORY_NAMES = {
    "configMap": "configmap", "secret": "secret", "downwardAPI": "downward-api", "projected": "projected",
    "emptyDir": "empty-dir",
}  # fmt: skip


def kind_of(volume: Object) -> str:
    """`emptyDir`, `hostPath`, … Raises VolumeError for kinds there is nothing for here."""
    for kind in (*_PAYLOAD_KINDS, "emptyDir", "hostPath"):
        if volume.get(kind) is not None:
            return kind
    sources = sorted(key for key in volume if key != "name")
    if not sources:
        return "emptyDir"
    raise VolumeError(f"volume {volume['name']}: {sources[0]} is not supported by this cluster")


def place(volume: Object, files: PodFiles) -> Path:
    """Where the volume's content is on the node."""
    kind = kind_of(volume)
    if kind == "hostPath":
        return Path(volume["hostPath"]["path"])
    return files.volume(_DIRECTORY_NAMES[kind], volume["name"])


async def setup(pod: Object, files: PodFiles, objects: Objects) -> None:
    """Make every volume ready. Can be repeated; payloads are brought up to date. Raises VolumeError naming the
    volume.
    """
    for volume in pod["spec"].get("volumes") or []:
        kind = kind_of(volume)
        try:
            if kind == "emptyDir":
                _empty_dir(pod, volume, place(volume, files))
            elif kind == "hostPath":
                _host_path(volume["hostPath"])
            else:
                await _payload(pod, volume, kind, files, objects)
        except OSError as exc:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {exc}') from exc


async def refresh(pod: Object, files: PodFiles, objects: Objects) -> None:
    """Bring payload volumes up to date while the pod runs; what fails keeps its last content."""
    for volume in pod["spec"].get("volumes") or []:
        kind = kind_of(volume)
        if kind in _PAYLOAD_KINDS:
            with contextlib.suppress(VolumeError, OSError):
                await _payload(pod, volume, kind, files, objects)


def binds(pod: Object, container: Object, files: PodFiles, variables: dict[str, str]) -> list[Bind]:
    """The container's volumeMounts, with sub-paths made and checked. Raises VolumeError."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    found: list[Bind] = []
    for mount in container.get("volumeMounts") or []:
        volume = volumes.get(mount["name"])
        if volume is None:
            raise VolumeError(
                f"container {container['name']} mounts volume {mount['name']}, which the pod does not have"
            )
        source = place(volume, files)
        sub = env.expand(mount["subPathExpr"], variables) if mount.get("subPathExpr") else mount.get("subPath")
        if sub:
            source = sub_path(source, sub)
        elif kind_of(volume) == "hostPath" and not source.exists():
            source.mkdir(parents=True, exist_ok=True)
        read_only = bool(mount.get("readOnly")) or kind_of(volume) in _PAYLOAD_KINDS
        found.append(Bind(str(source), mount["mountPath"], read_only, propagation(mount)))
    return found


def sub_path(base: Path, sub: str) -> Path:
    """`base/sub`, made as a folder when missing. Links that lead out of the volume are refused. Raises VolumeError."""
    if sub.startswith("/") or ".." in Path(sub).parts:
        raise VolumeError(f"subPath {sub!r} must be relative and stay inside the volume")
    path = base / sub
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
    resolved, root = path.resolve(), base.resolve()
    if not resolved.is_relative_to(root):
        raise VolumeError(f"subPath {sub!r} leads out of the volume")
    return resolved


def teardown(files: PodFiles) -> None:
    """Unmount what the pod's folder holds (memory volumes and what containers mounted below)."""
    for point in linux.mounts_under(files.base / "volumes"):
        with contextlib.suppress(OSError):
            linux.umount(point)


def _empty_dir(pod: Object, volume: Object, folder: Path) -> None:
    in_memory = (volume.get("emptyDir") or {}).get("medium") == "Memory"
    if not folder.exists() or (in_memory and not folder.is_mount()):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        if in_memory:
            limit = (volume.get("emptyDir") or {}).get("sizeLimit")
            size = f",size={int(quantity.parse(limit))}" if limit else ""
            linux.mount("tmpfs", folder, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, f"mode=1777{size}")
        group = _group(pod)
        if group is not None:
            os.chown(folder, -1, group)
            folder.chmod(0o2777)


def _host_path(source: Object) -> None:
    path, kind = Path(source["path"]), source.get("type") or ""
    match kind:
        case "":
            return
        case "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True, mode=0o755)
            return
        case "FileOrCreate":
            if not path.exists():
                path.touch(mode=0o644)
            return
        case _:
            tests = {
                "Directory": (stat.S_ISDIR, "a directory"), "File": (stat.S_ISREG, "a file"),
                "Socket": (stat.S_ISSOCK, "a socket"), "CharDevice": (stat.S_ISCHR, "a character device"),
                "BlockDevice": (stat.S_ISBLK, "a block device"),
            }  # fmt: skip
            if kind not in tests:
                raise VolumeError(f"hostPath type {kind} is unknown")
            test, words = tests[kind]
            if not path.exists() or not test(path.stat().st_mode):
                raise VolumeError(f"hostPath type check failed: {path} is not {words}")


async def _payload(pod: Object, volume: Object, kind: str, files: PodFiles, objects: Objects) -> None:
    try:
        if kind == "projected":
            source = volume["projected"]
            mode = int(source.get("defaultMode") or _DEFAULT_MODE)
            content: Payload = {}
            for entry in source.get("sources") or []:
                content |= await _source(pod, entry, mode, objects)
        else:
            mode = int(volume[kind].get("defaultMode") or _DEFAULT_MODE)
            content = await _source(pod, {kind: _as_projected(kind, volume[kind])}, mode, objects)
    except (VolumeError, env.ConfigMissing) as exc:
        raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {exc}') from exc
    payload.write(place(volume, files), content, group=_group(pod))


def _as_projected(kind: str, source: Object) -> Object:
    return source | {"name": source.get("secretName", "")} if kind == "secret" else source


async def _source(pod: Object, entry: Object, mode: int, objects: Objects) -> Payload:
    namespace = pod["metadata"]["namespace"]
    for kind, get in (("configMap", objects.config_map), ("secret", objects.secret)):
        if kind in entry:
            source = entry[kind]
            data, optional = await get(namespace, source["name"]), bool(source.get("optional"))
            if data is None:
                if optional:
                    return {}
                raise VolumeError(f'{kind.lower()} "{source["name"]}" not found')
            return payload.select(data, source.get("items"), mode=mode, optional=optional, what=kind.lower())
    if "serviceAccountToken" in entry:
        source = entry["serviceAccountToken"]
        lifetime = int(source.get("expirationSeconds") or 3600)
        token = await objects.token(pod, audience=source.get("audience") or "", lifetime_s=lifetime)
        # A pod that is not root could not read it otherwise; kubelet widens the mode in the same cases.
        owned = (pod["spec"].get("securityContext") or {}).get("runAsUser") in (None, 0)
        return {payload.clean(source["path"]): File(token.encode(), 0o600 if owned and _group(pod) is None else 0o644)}
    if "downwardAPI" in entry:
        result: Payload = {}
        for item in entry["downwardAPI"].get("items") or []:
            if "fieldRef" in item:
                text = env.field(pod, item["fieldRef"]["fieldPath"])
            else:
                text = env.resource(pod, {}, item["resourceFieldRef"])
            result[payload.clean(item["path"])] = File(text.encode(), int(item.get("mode") or mode))
        return result
    raise VolumeError(f"projected source {', '.join(entry) or 'without a kind'} is not supported by this cluster")


def _group(pod: Object) -> int | None:
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return None if group is None else int(group)
