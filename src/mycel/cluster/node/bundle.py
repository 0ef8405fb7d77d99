"""The OCI `config.json` of one container, from its pod. Pure: everything looked up before is passed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mycel.cluster.node import quantity
from mycel.cluster.node.names import Object

_DEFAULT_CAPABILITIES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE",
    "SYS_RAWIO", "SYS_CHROOT",
    "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "MKNOD", "LEASE",
    "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM",
    "BLOCK_SUSPEND", "AUDIT_READ",
    "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip
_MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
)  # fmt: skip
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_SHM = "/dev/shm"  # noqa: S108 (a mount point, not a temporary file)
_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}


@dataclass(frozen=True, slots=True)
class Bind:
    """A path of the node shown in the container."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    below: str = ""  # a folder whose entries come before the source's; the whole is read-only then


@dataclass(frozen=True, slots=True)
class Device:
    """A device node of the machine."""

    path: str
    kind: str
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the container's place is made of."""

    rootfs: str
    hostname: str
    cgroups_path: str
    namespaces: Mapping[str, str]  # type → path; of the sandbox
    binds: Sequence[Bind]
    bounding: frozenset[str]  # capabilities the machine can give
    devices: Sequence[Device] = ()
    shm: str = ""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    arguments: Sequence[str] = ()
    workdir: str = "/"
    image_user: str = "0"


def bounding_set(mask: int) -> frozenset[str]:
    """Names of a CapBnd mask."""
    return frozenset(name for bit, name in enumerate(_CAPABILITIES) if mask >> bit & 1)


def capabilities(context: Object, bounding: frozenset[str]) -> list[str]:
    """What the container may hold: the defaults with adds and drops, or everything the machine has for privileged
    ones.
    """
    if context.get("privileged"):
        return sorted(f"CAP_{name}" for name in bounding)
    asked = context.get("capabilities") or {}
    add = {str(name).upper().removeprefix("CAP_") for name in asked.get("add") or []}
    drop = {str(name).upper().removeprefix("CAP_") for name in asked.get("drop") or []}
    held = set() if "ALL" in drop else set(_DEFAULT_CAPABILITIES) - drop
    held |= set(_CAPABILITIES) - drop if "ALL" in add else add
    return sorted(f"CAP_{name}" for name in held if name in bounding)


def user(pod: Object, container: Object, image_user: str) -> tuple[int, int, list[int]]:
    """(uid, gid, further groups): the container's word, then the pod's, then the image's."""
    pod_context, own = pod["spec"].get("securityContext") or {}, container.get("securityContext") or {}
    image_uid, _, image_gid = image_user.partition(":")
    uid = own.get("runAsUser", pod_context.get("runAsUser", int(image_uid) if image_uid.isdigit() else 0))
    gid = own.get("runAsGroup", pod_context.get("runAsGroup", int(image_gid) if image_gid.isdigit() else 0))
    groups = [int(group) for group in pod_context.get("supplementalGroups") or []]
    if pod_context.get("fsGroup") is not None:
        groups.append(int(pod_context["fsGroup"]))
    return int(uid), int(gid), list(dict.fromkeys(groups))


def command(container: Object, entrypoint: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """`command` replaces the image's entrypoint and, with it, its arguments; `args` only the arguments."""
    own_command, own_args = container.get("command") or [], container.get("args")
    if own_command:
        return [*own_command, *(own_args or [])]
    return [*entrypoint, *(own_args if own_args is not None else arguments)]


def resources(container: Object) -> Object:
    """Limits for the control groups; devices are denied but for what runc allows by default."""
    asked = container.get("resources") or {}
    limits, requests = asked.get("limits") or {}, asked.get("requests") or {}
    result: Object = {}
    cpu: Object = {"shares": max(2, int(quantity.parse(requests.get("cpu", limits.get("cpu", 0))) * 1024))}
    if "cpu" in limits:
        cpu |= {"period": 100000, "quota": max(1000, int(quantity.parse(limits["cpu"]) * 100000))}
    result["cpu"] = cpu
    if "memory" in limits:
        result["memory"] = {"limit": int(quantity.parse(limits["memory"]))}
    privileged = bool((container.get("securityContext") or {}).get("privileged"))
    result["devices"] = [{"allow": privileged, "access": "rwm"}]
    return result


def config(pod: Object, container: Object, around: Surroundings) -> Object:
    """The whole config.json."""
    spec, context = pod["spec"], container.get("securityContext") or {}
    privileged = bool(context.get("privileged"))
    uid, gid, groups = user(pod, container, around.image_user)
    held = capabilities(context, around.bounding)
    effective = held if uid == 0 else []
    namespaces: list[Object] = [{"type": "mount"}]
    namespaces += [{"type": kind, "path": path} for kind, path in around.namespaces.items()]
    if "pid" not in around.namespaces and not spec.get("hostPID"):
        namespaces.append({"type": "pid"})
    propagations = {bind.propagation for bind in around.binds}
    linux: Object = {
        "namespaces": namespaces,
        "cgroupsPath": around.cgroups_path,
        "resources": resources(container),
        "rootfsPropagation": "rshared"
        if "rshared" in propagations
        else "rslave"
        if "rslave" in propagations
        else "rprivate",
    }
    if privileged:
        linux["devices"] = [
            {"path": device.path, "type": device.kind, "major": device.major, "minor": device.minor}
            for device in around.devices
        ]
    elif context.get("procMount") != "Unmasked":
        linux |= {"maskedPaths": list(_MASKED), "readonlyPaths": list(_READ_ONLY)}
    return {
        "ociVersion": "1.0.2",
        "hostname": around.hostname if "uts" in around.namespaces else "",
        "root": {"path": around.rootfs, "readonly": bool(context.get("readOnlyRootFilesystem"))},
        "process": {
            "terminal": bool(container.get("tty")),
            "user": {"uid": uid, "gid": gid, "additionalGids": groups},
            "args": list(around.arguments),
            "env": [f"{name}={value}" for name, value in around.environment.items()],
            "cwd": container.get("workingDir") or around.workdir,
            "capabilities": {
                "bounding": held, "effective": effective, "permitted": effective, "inheritable": [], "ambient": [],
            },
            "noNewPrivileges": context.get("allowPrivilegeEscalation") is False,
        },
        "mounts": _mounts(pod, around, privileged=privileged),
        "linux": linux,
    }  # fmt: skip


def _mounts(pod: Object, around: Surroundings, *, privileged: bool) -> list[Object]:
    sys_mode = "rw" if privileged else "ro"
    mounts: list[Object] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime",
        "mode=755", "size=65536k"]},
        {
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", sys_mode]},
        {"destination": "/sys/fs/cgroup", "type": "bind", "source": "/sys/fs/cgroup", "options": ["rbind", sys_mode]},
    ]  # fmt: skip
    if around.shm:
        mounts.append({"destination": _SHM, "type": "bind", "source": around.shm, "options": ["rbind", "rw"]})
    # A mount point inside another must come after it.
    for bind in sorted(around.binds, key=lambda item: item.target.rstrip("/").count("/")):
        if bind.below:
            layers = f"lowerdir={bind.below}:{bind.source}"
            mounts.append(
                {"destination": bind.target, "type": "overlay", "source": "overlay", "options": [layers, "ro"]}
            )
            continue
        options = ["rbind", bind.propagation, "ro" if bind.read_only else "rw"]
        mounts.append({"destination": bind.target, "type": "bind", "source": bind.source, "options": options})
    return mounts


def propagation(mount: Object) -> str:
    """A volumeMount's mountPropagation in mount(8)'s words."""
    return _PROPAGATION.get(mount.get("mountPropagation") or "None", "rprivate")


def environment(
    image: Mapping[str, str], own: Mapping[str, str], *, path: str, hostname: str, uid: int
) -> dict[str, str]:
    """The container's variables over the image's over the defaults every runtime sets."""
    return {"PATH": path, "HOSTNAME": hostname, "HOME": "/root" if uid == 0 else "/", **image, **own}


def machine_devices(root: Path = Path("/dev")) -> list[Device]:
    """Device nodes a privileged container sees beyond the default ones."""
    import os
    import stat

    skipped = {"pts", "shm", "mqueue", "fd", "hugepages"}
    default = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
    found: list[Device] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in skipped]
        for name in files:
            path = Path(folder) / name
            try:
                info = path.lstat()
            except FileNotFoundError:
                continue
            if name in default or not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
                continue
            kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
            found.append(Device(str(path), kind, os.major(info.st_rdev), os.minor(info.st_rdev)))
    return found
