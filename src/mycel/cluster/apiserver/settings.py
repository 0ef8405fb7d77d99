"""What the API server is told when it starts, parsed once."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to serve on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one API server process."""

    state: Path
    pki: Path
    listen: tuple[Listen, ...]
    service_subnet: ipaddress.IPv4Network | ipaddress.IPv6Network
    pod_subnet: ipaddress.IPv4Network | ipaddress.IPv6Network
    names: tuple[str, ...]
    controllers: bool
    log_level: str

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.state / "store.db"


def _listen(text: str) -> Listen:
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not ADDRESS:PORT")
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: the address must be an IP address") from error
    return Listen(host, int(port))


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Settings from the command line; exits with a usage message when they are wrong."""
    parser = argparse.ArgumentParser(prog="mycel-apiserver", description="The embedded cluster's API server.")
    parser.add_argument("--state", type=Path, required=True, help="directory of the database")
    parser.add_argument("--pki", type=Path, help="directory of keys and certificates (default: STATE/pki)")
    parser.add_argument(
        "--listen", type=_listen, action="append", help="ADDRESS:PORT, repeatable (default 127.0.0.1:6443)"
    )
    parser.add_argument("--service-subnet", type=ipaddress.ip_network, default="10.96.0.0/16")
    parser.add_argument("--pod-subnet", type=ipaddress.ip_network, default="10.244.0.0/16")
    parser.add_argument("--name", action="append", default=[], help="further DNS name of the certificate")
    parser.add_argument("--no-controllers", action="store_true", help="serve the API only")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parsed = parser.parse_args(arguments)
    return Settings(
        state=parsed.state,
        pki=parsed.pki or parsed.state / "pki",
        listen=tuple(parsed.listen or (Listen("127.0.0.1", 6443),)),
        service_subnet=parsed.service_subnet,
        pod_subnet=parsed.pod_subnet,
        names=tuple(parsed.name),
        controllers=not parsed.no_controllers,
        log_level=parsed.log_level,
    )
