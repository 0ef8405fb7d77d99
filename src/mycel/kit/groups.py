"""A process's own version 2 control group, as the kernel's programs name it (`bpf_skb_cgroup_id`), handed on in a file.

Only the process itself can find it out: from another container its process id is not the same. Standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path

from mycel.kit.files import replace_private


def own_group(root: Path) -> int | None:
    """The id of this process's control group below `root`, a mounted version 2 hierarchy: its folder's inode.

    None when it is not below. Processes of other pid namespaces are listed as 0 (cgroups(7)), so one group names ours.
    """
    own = str(os.getpid())
    for folder, _folders, files in os.walk(root):
        if "cgroup.procs" not in files:
            continue
        try:
            listed = Path(folder, "cgroup.procs").read_text().split()
        except OSError:  # it went away, or holds threads
            continue
        if own in listed:
            return Path(folder).stat().st_ino
    return None


def write_group(path: Path, root: Path) -> bool:
    """Say in a file (0600) which group this process is in; False when it is in none below `root`."""
    found = own_group(root)
    if found is None:
        return False
    replace_private(path, [b"%d\n" % found])
    return True


def read_group(path: Path) -> int | None:
    """What such a file says; None when there is none, or it says nothing."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
