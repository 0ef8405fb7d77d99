"""Which port stands for which rules, on disk: the next agent gives the same, for the kernel's rows and the proxies go
on by what this one gave.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from mycel.kit.files import replace_private
from mycel.policy.proxy_ports import ProxyPorts

log = logging.getLogger(__name__)
_Digests = dict[int, int]


class PortFile:
    """One file for all ports. Blocks."""

    def __init__(self, path: Path, ports: ProxyPorts) -> None:
        self._path = path
        self._ports = ports
        self._saved: _Digests = {}

    def load(self) -> None:
        """Keep the ports an earlier agent gave. Before the first policy."""
        try:
            self._saved = msgspec.json.decode(self._path.read_bytes(), type=_Digests)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as exc:
            log.error("the ports of proxies in %s cannot be read, they are given anew: %s", self._path, exc)
        self._ports.expect(self._saved)

    def save(self) -> None:
        """Before a proxy is told of ports."""
        digests = self._ports.digests
        if digests != self._saved:
            replace_private(self._path, [msgspec.json.encode(digests)])
            self._saved = digests
