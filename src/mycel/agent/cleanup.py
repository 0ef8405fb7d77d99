"""`cilium-cleanup`: takes what the mesh made off its node, before the agents are removed for good.

The order is that of safety: no new pod is wired → no pod talks → no program, no map → no device, no route. Pods'
own devices stay, set down, and so does what is written down of them: they go with their pods, and an agent that
comes back finds them, attaches its programs and sets them up again. The plugin stays too: without it no runtime
could take such a pod down.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from mycel.agent.cni_install import CONFIG_NAME
from mycel.agent.settings import Settings, parse_settings
from mycel.datapath import clsact, features, node, pod_link
from mycel.datapath import netlink as nl
from mycel.datapath.errors import DatapathError
from mycel.datapath.node_setup import RouteTarget
from mycel.datapath.rtnetlink import Netlink
from mycel.kit.config import SettingsError, read_config_dir
from mycel.kit.reconcile import Diff


def clean(settings: Settings) -> str:
    """Remove it all and say what there was. Doing it twice is fine. Raises DatapathError, OSError."""
    with contextlib.suppress(FileNotFoundError):
        (settings.cni_conf_dir / CONFIG_NAME).unlink()
    with Netlink() as netlink:
        pods = pod_link.pod_devices(netlink)
        for link in pods.values():
            nl.set_link(netlink, link.ifindex, up=False)
        routes = RouteTarget(netlink)
        ours = routes.dump()
        routes.apply_now(Diff({}, tuple(ours)))
        if not features.has_tcx():
            for link in nl.links(netlink):
                for side in (clsact.INGRESS, clsact.EGRESS):
                    clsact.detach(netlink, link.ifindex, side)
        node.remove(settings.bpf_root / "mycel", netlink=netlink)
    return f"{len(ours)} routes, programs, maps and the node's devices are removed; {len(pods)} pods are cut off"


def main(arguments: list[str] | None = None) -> int:
    """`cilium-cleanup --force [--config-dir DIR]`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="cilium-cleanup", description="Takes the mesh off this node.")
    parser.add_argument("--config-dir", type=Path, default=Path("/tmp/cilium/config-map"))  # noqa: S108
    parser.add_argument("--force", action="store_true", required=True, help="pods lose their network until a new one")
    options = parser.parse_args(arguments)
    try:
        print(clean(parse_settings(read_config_dir(options.config_dir), os.environ)))
    except (SettingsError, DatapathError, OSError) as exc:
        print(f"cilium-cleanup: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
