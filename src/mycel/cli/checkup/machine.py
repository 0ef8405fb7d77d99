"""The kernel, control groups, capabilities, memory and disk: read from /proc and /sys, judged by pure functions."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable
from pathlib import Path

from mycel.cli.checkup.finding import Finding, Level, needed, optional

_KERNEL_MEND = "apt-get install linux-image-amd64, then reboot: the kernel of Debian 12 has it"
# What programs, namespaces, mounts and raw links take (capabilities(7)).
_CAPABILITIES = {
    "CAP_SYS_ADMIN": 21,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_BPF": 39,
    "CAP_PERFMON": 38,
    "CAP_SYS_PTRACE": 19,
    "CAP_MKNOD": 27,
    "CAP_SYS_CHROOT": 18,
}
_MEMORY_MIB = 2048  # the walkthrough's four nodes and their pods
_DISK_MIB = 1024


def look() -> list[Finding]:
    """Every finding about the machine. Needs root for true answers about the kernel."""
    found = [_root(), *_kernel(), *_control_groups(), _capabilities(Path("/proc/self/status").read_text())]
    found += [_memory(Path("/proc/meminfo").read_text()), _disk()]
    found += [_forwarding()]
    return found


def _root() -> Finding:
    uid = os.geteuid()
    return needed("machine", "root", uid == 0, f"uid {uid}", mend="run it again with sudo")


def _kernel() -> Iterable[Finding]:
    from mycel.datapath import features

    yield Finding("kernel", "release", Level.OK, f"{platform.release()} on {platform.machine()}")
    for feature in features.report():
        make = needed if feature.required else optional
        seen = "present" if feature.present else "absent"
        mend = f"needs {feature.needs}" + ("" if not feature.required else f"; {_KERNEL_MEND}")
        yield make("kernel", feature.name, feature.present, seen, mend=mend)


def _control_groups() -> Iterable[Finding]:
    mounts = Path("/proc/mounts").read_text().splitlines()
    known = Path("/proc/filesystems").read_text().split()
    places = {kind: mounted(mounts, kind) for kind in ("cgroup", "cgroup2", "bpf")}
    v2 = places["cgroup2"]
    yield needed(
        "machine",
        "control groups, version 2",
        "cgroup2" in known,
        f"at {', '.join(v2)}" if v2 else "not mounted: nodes mount their own",
        mend=_KERNEL_MEND,
    )
    if places["cgroup"]:
        text = f"{len(places['cgroup'])} hierarchies beside version 2"
        yield Finding("machine", "control groups, version 1", Level.OK, text)
    text = f"at {', '.join(places['bpf'])}" if places["bpf"] else "not mounted: nodes mount their own"
    yield needed("machine", "bpffs", "bpf" in known, text, mend=_KERNEL_MEND)


def mounted(mounts: Iterable[str], kind: str) -> list[str]:
    """Where filesystems of a kind are mounted, from the lines of /proc/mounts."""
    fields = [line.split(" ") for line in mounts]
    return [field[1] for field in fields if len(field) > 2 and field[2] == kind]


def _capabilities(status: str) -> Finding:
    missing = missing_capabilities(status)
    return needed(
        "machine",
        "capabilities",
        not missing,
        f"without {', '.join(missing)}" if missing else "all that is needed",
        mend="start the container or virtual machine this runs in with these capabilities (or privileged)",
    )


def missing_capabilities(status: str) -> list[str]:
    """Which ones the bounding set lacks, by the text of /proc/<pid>/status."""
    bounding = next((line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")), "0")
    mask = int(bounding, 16)
    return sorted(name for name, bit in _CAPABILITIES.items() if not mask >> bit & 1)


def _memory(meminfo: str) -> Finding:
    kib = next((int(line.split()[1]) for line in meminfo.splitlines() if line.startswith("MemAvailable:")), 0)
    seen = f"{kib // 1024} MiB available"
    mend = f"a cluster of four nodes wants {_MEMORY_MIB} MiB: make room, or create fewer nodes"
    return optional("machine", "memory", kib >= _MEMORY_MIB * 1024, seen, mend=mend)


def _disk() -> Finding:
    state = Path(os.environ.get("MYCEL_STATE_DIR") or "/var/lib/mycel")
    place = next(path for path in (state, *state.parents) if path.exists())
    mib = shutil.disk_usage(place).free >> 20
    mend = f"clusters want {_DISK_MIB} MiB there: make room, or point MYCEL_STATE_DIR elsewhere"
    return optional("machine", "disk", mib >= _DISK_MIB, f"{mib} MiB free at {place}", mend=mend)


def _forwarding() -> Finding:
    value = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
    seen = "on" if value == "1" else "off: mycel cluster create switches it on"
    return Finding("machine", "IPv4 forwarding", Level.OK, seen)
