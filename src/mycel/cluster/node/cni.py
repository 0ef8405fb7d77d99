"""The Container Network Interface, version 1.0.0, as its specification says: configuration lists, chaining,
results, DEL.

Knows no plugin: it reads the first list in `/etc/cni/net.d`, runs the programs it names from `/opt/cni/bin`, and
keeps the result and the very configuration of each ADD, so that DEL works also after the list changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mycel.cluster.node.errors import CniError
from mycel.cluster.node.names import Object, PodKey

CONFIG = Path("/etc/cni/net.d")
BINARIES = Path("/opt/cni/bin")
CACHE = Path("/var/lib/cni/results")
_INTERFACE = "eth0"
_TIMEOUT_S = 120.0
_VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


@dataclass(frozen=True, slots=True)
class Network:
    """One configuration list."""

    name: str
    version: str
    plugins: tuple[Object, ...]
    disable_check: bool = False


@dataclass(frozen=True, slots=True)
class Attachment:
    """One pod's place in a network, as plugins are told."""

    container: str
    netns: str
    pod: PodKey
    uid: str
    port_mappings: tuple[Object, ...] = ()

    @property
    def arguments(self) -> str:
        """CNI_ARGS, as container runtimes pass them."""
        return ";".join(
            (
                "IgnoreUnknown=1",
                f"K8S_POD_NAMESPACE={self.pod.namespace}",
                f"K8S_POD_NAME={self.pod.name}",
                f"K8S_POD_INFRA_CONTAINER_ID={self.container}",
                f"K8S_POD_UID={self.uid}",
            )
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What ADD gave: the pod's addresses (without prefix length) and the whole result."""

    addresses: tuple[str, ...]
    raw: Object


def load(folder: Path = CONFIG) -> Network | None:
    """The first usable configuration by file name, or None: then the node's network is not ready. Raises CniError."""
    if not folder.is_dir():
        return None
    for path in sorted(folder.iterdir()):
        if path.suffix in (".conflist", ".conf", ".json"):
            try:
                return parse(path.read_bytes(), path.suffix != ".conflist")
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as exc:
                raise CniError(f"{path}: {exc}") from exc
    return None


def parse(data: bytes, single: bool) -> Network:
    """A list, or with `single` one plugin's configuration made a list of one. Raises ValueError naming the field."""
    try:
        document: Object = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        raise ValueError(f"not a JSON object: {exc}") from exc
    name, version = document.get("name"), document.get("cniVersion", "0.2.0")
    plugins: Any = [document] if single and "plugins" not in document else document.get("plugins")
    if not isinstance(name, str) or not name:
        raise ValueError("name: missing")
    if version not in _VERSIONS:
        raise ValueError(f"cniVersion: {version} is not one of {', '.join(_VERSIONS)}")
    if not isinstance(plugins, list) or not plugins:
        raise ValueError("plugins: missing or empty")
    for index, plugin in enumerate(plugins):
        if not isinstance(plugin, dict) or not isinstance(plugin.get("type"), str) or "/" in plugin["type"]:
            raise ValueError(f"plugins[{index}].type: missing or not a plain file name")
    return Network(name, version, tuple(plugins), bool(document.get("disableCheck")))


def request(network: Network, plugin: Object, attachment: Attachment, previous: Object | None) -> Object:
    """What a plugin reads on standard input: its configuration, completed."""
    config = {key: value for key, value in plugin.items() if key != "capabilities"}
    config |= {"cniVersion": network.version, "name": network.name}
    runtime: Object = {}
    if (plugin.get("capabilities") or {}).get("portMappings") and attachment.port_mappings:
        runtime["portMappings"] = list(attachment.port_mappings)
    if runtime:
        config["runtimeConfig"] = runtime
    if previous is not None:
        config["prevResult"] = previous
    return config


def addresses(result: Object) -> tuple[str, ...]:
    """Plain addresses of a result, IPv4 first, as a pod's status lists them."""
    found = [str(entry["address"]).partition("/")[0] for entry in result.get("ips") or []]
    return tuple(sorted(found, key=lambda address: ":" in address))


async def add(network: Network, attachment: Attachment) -> Result:
    """Attach the pod: every plugin in order, each given the result before it. On failure what was done is undone.
    Raises CniError.
    """
    previous: Object | None = None
    cache = _cache(attachment, network.name)
    cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = {"network": network.name, "version": network.version, "plugins": network.plugins, "result": None}
    cache.write_bytes(msgspec.json.encode(kept))  # before the plugins run: DEL must know what to undo
    try:
        for plugin in network.plugins:
            answer = await _call("ADD", plugin, attachment, request(network, plugin, attachment, previous))
            previous = answer or previous
        if previous is None:
            raise CniError(f"network {network.name}: no plugin returned a result")
    except CniError:
        with contextlib.suppress(CniError):
            await _delete(network, attachment, None)
        raise
    cache.write_bytes(msgspec.json.encode(kept | {"result": previous}))
    found = addresses(previous)
    if not found:
        raise CniError(f"network {network.name}: the result of {network.plugins[-1]['type']} has no address")
    return Result(found, previous)


async def check(attachment: Attachment) -> None:
    """Ask the plugins whether the attachment still stands. Raises CniError when it does not."""
    for path, network, result in _cached(attachment):
        if network.disable_check or network.version in ("0.3.0", "0.3.1"):
            continue
        del path
        for plugin in network.plugins:
            await _call("CHECK", plugin, attachment, request(network, plugin, attachment, result))


async def delete(attachment: Attachment) -> None:
    """Detach: the plugins of the ADD in reverse order, with its result. Raises CniError; can be repeated."""
    for path, network, result in _cached(attachment):
        await _delete(network, attachment, result)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


async def _delete(network: Network, attachment: Attachment, result: Object | None) -> None:
    for plugin in reversed(network.plugins):
        await _call("DEL", plugin, attachment, request(network, plugin, attachment, result))


async def _call(verb: str, plugin: Object, attachment: Attachment, config: Object) -> Object | None:
    kind = plugin["type"]
    program = BINARIES / kind
    environment = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": attachment.container,
        "CNI_NETNS": attachment.netns,
        "CNI_IFNAME": _INTERFACE,
        "CNI_ARGS": attachment.arguments,
        "CNI_PATH": str(BINARIES),
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    }
    try:
        process = await asyncio.create_subprocess_exec(
            str(program),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
    except OSError as exc:
        raise CniError(f'failed to find plugin "{kind}" in path [{BINARIES}]: {exc.strerror}') from exc
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, errors = await process.communicate(msgspec.json.encode(config))
    except TimeoutError as exc:
        process.kill()
        await process.wait()
        raise CniError(f"plugin {kind}: {verb} took longer than {_TIMEOUT_S:.0f} s") from exc
    if process.returncode != 0:
        raise CniError(f'plugin type="{kind}" failed ({verb.lower()}): {_complaint(output, errors)}')
    if not output.strip():
        return None
    try:
        return msgspec.json.decode(output, type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        raise CniError(f"plugin {kind}: {verb} answered something that is not JSON: {exc}") from exc


def _complaint(output: bytes, errors: bytes) -> str:
    try:
        said: Object = msgspec.json.decode(output, type=dict[str, Any])
    except msgspec.MsgspecError:
        return (output + errors).decode(errors="replace").strip()[-1000:] or "no message"
    return ": ".join(str(said[key]) for key in ("msg", "details") if said.get(key)) or "no message"


def _cache(attachment: Attachment, network: str) -> Path:
    return CACHE / f"{network}-{attachment.container}-{_INTERFACE}"


def _cached(attachment: Attachment) -> list[tuple[Path, Network, Object | None]]:
    found: list[tuple[Path, Network, Object | None]] = []
    if not CACHE.is_dir():
        return found
    for path in CACHE.glob(f"*-{attachment.container}-{_INTERFACE}"):
        try:
            kept: Object = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (FileNotFoundError, msgspec.MsgspecError):
            continue
        found.append((path, Network(kept["network"], kept["version"], tuple(kept["plugins"])), kept.get("result")))
    return found
