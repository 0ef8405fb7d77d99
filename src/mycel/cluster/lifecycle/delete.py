"""`mycel cluster delete` and `stop`: undo everything the record names, in an order in which nothing can come back.

Processes first (by control group, atomically), then namespaces with their mounts, interfaces, groups, kubeconfig,
files; the record goes last, so a delete that was interrupted can be repeated. Deleting what is not there is
success.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from mycel.cluster import linux
from mycel.cluster.lifecycle import cgroups, kubeconfig, network, nodespace, record
from mycel.cluster.lifecycle.errors import LifecycleError
from mycel.cluster.lifecycle.paths import ClusterPaths, run_root, state_root
from mycel.cluster.lifecycle.record import ClusterRecord

Report = Callable[[str], AbstractContextManager[object]]


def delete(name: str, *, report: Report) -> bool:
    """Remove every trace of the cluster; False when there was none. Raises LifecycleError when something does not
    go.
    """
    paths = ClusterPaths.of(name)
    if not paths.state.exists() and not paths.run.exists():
        return False
    try:
        cluster = record.read(paths)
    except LifecycleError:
        cluster = None  # names of groups and interfaces follow from the path, so a damaged record hinders nothing
    with report("Stopping processes"):
        cgroups.kill(paths.cgroup)
    with report("Removing nodes and their network"):
        nodespace.remove(paths)
        network.remove(cluster or _nameless(paths))
        cgroups.remove(paths.cgroup)
    with report("Removing files"):
        for file in cluster.kubeconfigs if cluster else ():
            kubeconfig.uninstall(Path(file), f"mycel-{name}")
        _remove_tree(paths.run)
        _remove_tree(paths.state, last=paths.record)
        for folder in (run_root(), state_root() / "clusters", state_root()):
            _remove_if_empty(folder)
    return True


def stop(name: str, *, report: Report) -> None:
    """End all processes and take namespaces down; files stay, `start` brings the cluster back. Raises
    LifecycleError.
    """
    paths = ClusterPaths.of(name)
    cluster = record.read(paths)
    if cluster is None:
        raise LifecycleError(f"there is no cluster {name}: mycel cluster list")
    with report("Stopping processes"):
        cgroups.kill(paths.cgroup)
    with report("Removing namespaces"):
        nodespace.remove(paths)
        network.remove(cluster)
        cgroups.remove(paths.cgroup)
        _remove_tree(paths.run)


def _nameless(paths: ClusterPaths) -> ClusterRecord:
    """What can be known of a cluster whose record is lost: names follow from the place, cables from the interfaces
    present.
    """
    cables = [path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(paths.veth(0)[:-1])]
    nodes = tuple(record.NodeRecord("", "", "", cable) for cable in cables)
    return ClusterRecord(
        paths.name,
        paths.bridge,
        "",
        "",
        "",
        "",
        "",
        0,
        paths.nft_table,
        paths.cgroup,
        nodes,
        ip_forward_was="1",
    )


def _remove_tree(folder: Path, *, last: Path | None = None) -> None:
    """Remove a folder, `last` last. A mount left below (a crash in the middle) is taken down first."""
    if not folder.exists():
        return
    for point in linux.mounts_under(folder):
        linux.umount(point)
    for attempt in range(20):
        try:
            for entry in folder.iterdir():
                if entry != last:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as exc:
            if attempt == 19:
                raise LifecycleError(f"cannot remove {folder}: {exc}; try again") from exc
            time.sleep(0.05)  # the kernel takes a dead namespace's mounts down in its own time
        else:
            return


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
