"""The node's wired pods on disk: one JSON file each, written before CNI ADD answers, read at start.

Files are replaced by rename, so a reader sees the old or the new one. They are not synced to the medium:
after a power loss the pods are gone as well, only a killed agent has to find them again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mycel.kit.files import replace_private
from mycel.model.address import format_address, parse_address
from mycel.model.workload import EndpointId, IdentityId, LocalEndpoint, PodRef

log = logging.getLogger(__name__)
_FILE_LIMIT = 1 << 20


class _Saved(msgspec.Struct, frozen=True, kw_only=True):
    """The file's shape, also for people: addresses and MACs as text."""

    id: int
    namespace: str
    pod: str
    uid: str
    container_id: str
    addresses: list[str]
    interface: str
    ifindex: int
    mac: str
    node_mac: str
    netns: str
    pod_interface: str = "eth0"
    identity: int = 0
    labels: list[str] = []


class EndpointFiles:
    """The directory of endpoint files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self) -> Iterator[LocalEndpoint]:
        """What was saved; files that cannot be read are moved aside and named in the log."""
        for path in sorted(self._directory.glob("*.json")):
            try:
                if path.stat().st_size > _FILE_LIMIT:
                    raise ValueError("it is too large")
                yield _load(msgspec.json.decode(path.read_bytes(), type=_Saved))
            except (ValueError, OSError) as exc:
                log.error("endpoint file %s cannot be used (%s); it is kept as %s.bad", path, exc, path.name)
                path.rename(path.with_suffix(".json.bad"))

    def save(self, endpoint: LocalEndpoint) -> None:
        """Write or replace an endpoint's file."""
        content = msgspec.json.format(msgspec.json.encode(_save(endpoint)), indent=1)
        replace_private(self._path(endpoint.endpoint_id), [content])

    def remove(self, endpoint_id: EndpointId) -> None:
        """Delete an endpoint's file, if it is there."""
        self._path(endpoint_id).unlink(missing_ok=True)

    def _path(self, endpoint_id: EndpointId) -> Path:
        return self._directory / f"{endpoint_id}.json"


def _load(saved: _Saved) -> LocalEndpoint:
    return LocalEndpoint(
        ref=PodRef(saved.namespace, saved.pod),
        uid=saved.uid,
        container_id=saved.container_id,
        endpoint_id=EndpointId(saved.id),
        addresses=tuple(parse_address(text) for text in saved.addresses),
        interface=saved.interface,
        ifindex=saved.ifindex,
        mac=_mac(saved.mac),
        node_mac=_mac(saved.node_mac),
        netns=saved.netns,
        pod_interface=saved.pod_interface,
        identity=IdentityId(saved.identity),
        labels=tuple(saved.labels),
    )


def _save(endpoint: LocalEndpoint) -> _Saved:
    return _Saved(
        id=endpoint.endpoint_id,
        namespace=endpoint.ref.namespace,
        pod=endpoint.ref.name,
        uid=endpoint.uid,
        container_id=endpoint.container_id,
        addresses=[format_address(address) for address in endpoint.addresses],
        interface=endpoint.interface,
        ifindex=endpoint.ifindex,
        mac=endpoint.mac.hex(":"),
        node_mac=endpoint.node_mac.hex(":"),
        netns=endpoint.netns,
        pod_interface=endpoint.pod_interface,
        identity=endpoint.identity,
        labels=list(endpoint.labels),
    )


def _mac(text: str) -> bytes:
    mac = bytes.fromhex(text.replace(":", ""))
    if len(mac) != 6:
        raise ValueError(f"{text} is not a MAC address")
    return mac
