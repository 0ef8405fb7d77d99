"""Put the plugin and its configuration on the node: the plugin early, the configuration when the agent is ready.

A runtime takes the first configuration in order of names, so ours is `05-…`; with `exclusive`, others are
moved aside (and stay for whoever uninstalls the mesh).
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)
CONFIG_NAME = "05-cilium.conflist"
PLUGIN_NAME = "cilium-cni"
# The node's Python, isolated and without site-packages: the plugin starts for every pod.
_SHEBANG = "#!/usr/bin/python3 -IS\n"


def install_plugin(bin_dir: Path) -> None:
    """Write the plugin, executable, if it differs."""
    source = _SHEBANG + Path(__file__).parents[1].joinpath("cni", "plugin.py").read_text()
    _replace(bin_dir / PLUGIN_NAME, source, mode=0o755)


def configuration(run_dir: str = "/var/run/cilium") -> str:
    """The conflist."""
    plugin = {"type": PLUGIN_NAME, "run-dir": run_dir}
    return json.dumps({"cniVersion": "1.0.0", "name": "cilium", "plugins": [plugin]}, indent=2) + "\n"


def install_configuration(conf_dir: Path, *, run_dir: str, exclusive: bool) -> None:
    """Write the conflist: from now on the runtime wires pods through us."""
    _replace(conf_dir / CONFIG_NAME, configuration(run_dir), mode=0o600)
    if not exclusive:
        return
    for path in conf_dir.iterdir():
        if path.suffix in (".conf", ".conflist", ".json") and path.name != CONFIG_NAME:
            path.rename(path.with_name(f"{path.name}.cilium_bak"))
            log.info("CNI configuration %s moved aside", path.name)


def _replace(path: Path, text: str, *, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_text() == text:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.rename(path)
