"""Names of TLS servers in policies, in the real Envoy: TLS with these passes unended, everything else ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mycel.abi import Direction
from mycel.agent.proxy.access_log import records_of
from mycel.cluster.apiserver.pki import Pki
from mycel.envoy import listeners
from mycel.envoy.messages import from_json, to_resource
from mycel.envoy.request_log import Outcome
from mycel.envoy.resources import CLUSTER, LISTENER
from mycel.flow.l7 import L7Verdict, Tls
from mycel.flow.redact import Redaction
from mycel.policy.proxy_ports import HttpSections
from mycel.policy.rules import L7
from tests.envoy.bed import Bed
from tests.envoy.http_traffic import Backend, ask_one, at, section
from tests.oracle.http import Request

pytestmark = pytest.mark.root

NAMES = L7("tls", '{"serverNames": ["**.deep.example", "*.example", "a.test"]}')
MANY = tuple(f"a-rather-long-name-of-a-server-{number}.test" for number in range(60))
OTHERS = L7("tls", json.dumps({"serverNames": ["other.test", "my_app.test", *MANY]}))
HTTP = section([{"method": "GET"}])
LISTENS = "policy/egress/10001"


@contextlib.asynccontextmanager
async def listening(folder: Path, sections: Sequence[L7 | None]) -> AsyncGenerator[Bed]:
    """A listener of these sections at `folder/asked`; the server is at `folder/server`."""
    cluster = {**listeners.cluster()}
    cluster.update(type="STATIC", lb_policy="ROUND_ROBIN", load_assignment=at(folder / "server"))
    del cluster["upstream_bind_config"]
    fields: Any = listeners.listener(10001, HttpSections(Direction.EGRESS, tuple(sections)), ())
    fields["address"] = {"pipe": {"path": str(folder / "asked")}}
    fields["listener_filters"] = [each for each in fields["listener_filters"] if each["name"] == "tls_inspector"]
    del fields["transparent"], fields["socket_options"]
    offered = {
        CLUSTER: {cluster["name"]: to_resource(from_json(CLUSTER, cluster))},
        LISTENER: {fields["name"]: to_resource(from_json(LISTENER, fields))},
    }
    async with Bed(folder).running() as bed:
        bed.offer(offered)
        await bed.settled(offered)
        assert not [each.error for each in bed.outcomes.values() if each.error]
        async with asyncio.timeout(60):
            yield bed


class TlsServer:
    """It notes what name it was asked by, and gives everything back."""

    def __init__(self, folder: Path) -> None:
        self.names: list[str | None] = []
        self._folder = folder
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*_certificate(folder))
        self._context.sni_callback = lambda _made, name, _context: self.names.append(name)

    async def running(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._serve, self._folder / "server", ssl=self._context)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()


def _certificate(folder: Path) -> tuple[Path, Path]:
    pki = Pki(folder / "pki")
    pki.ensure()
    pair = pki.ensure_node("server", ())
    return pair.certificate, pair.key


async def says(folder: Path, name: str | None) -> bool:
    """Whether a server answers a client that asks for a name by TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        reader, writer = await asyncio.open_unix_connection(folder / "asked", ssl=context, server_hostname=name or "")
    except (ConnectionError, ssl.SSLError):
        return False
    writer.write(b"hello")
    answered = await reader.readexactly(5) == b"hello"
    writer.close()
    return answered


ASKED = {
    "a.test": True,
    "A.TEST": True,
    "b.test": False,
    "xa.test": False,
    "one.example": True,
    "one.two.example": False,
    "example": False,
    "one.deep.example": True,
    "one.two.deep.example": True,
    "other.test": True,
    "my_app.test": True,
    MANY[-1]: True,
    None: False,
}


async def test_connections_end_or_pass_by_the_name_they_ask_for(tmp_path: Path):
    """And are logged with the rule: those that pass when they do."""
    server = TlsServer(tmp_path)
    async with listening(tmp_path, (NAMES, OTHERS)) as bed, await server.running():
        assert {name: await says(tmp_path, name) for name in ASKED} == ASKED
        lines = await bed.logged(len(ASKED))
    assert [name.lower() for name in server.names if name] == [
        name.lower() for name, passes in ASKED.items() if passes and name
    ]
    placed = [line._replace(client=b"10.0.0.1:40000", server=b"10.0.0.2:443") for line in lines]
    told = [each for line in placed for each in records_of(line, 1, redaction=Redaction())]
    records = {each.tls: each for each in told if each.tls}
    verdicts = {name.server_name: each.verdict for name, each in records.items()}
    assert verdicts == {
        (name or "").lower(): L7Verdict.FORWARDED if passes else L7Verdict.DROPPED for name, passes in ASKED.items()
    }
    assert records[Tls("a.test")].rule == "0/0"
    assert records[Tls("other.test")].rule == "1/0"
    assert {each.listener for each in records.values()} == {10001}


@pytest.mark.parametrize(
    ("sections", "plain", "named", "others"),
    [
        ((NAMES,), 0, True, False),
        ((None, NAMES), 200, True, True),
        ((HTTP, NAMES), 403, True, False),
        ((None, HTTP, NAMES), 200, True, True),
    ],
)
async def test_beside_other_rules(tmp_path: Path, sections: Any, plain: int, named: bool, others: bool):
    """What is no TLS is judged by HTTP rules, where there are any; a rule for everything lets everything pass."""
    async with listening(tmp_path, sections):
        async with await TlsServer(tmp_path).running():
            assert (await says(tmp_path, "a.test"), await says(tmp_path, "b.test")) == (named, others)
        (tmp_path / "server").unlink(missing_ok=True)
        async with Backend().at(tmp_path / "server"):
            try:
                (got,) = await ask_one(tmp_path / "asked", [Request("PUT", "a.test", "/", ())])
            except (asyncio.IncompleteReadError, ConnectionError):
                got = 0
            assert got == plain


async def test_servers_may_begin_where_everything_passes(tmp_path: Path):
    """And not where nothing but names does."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 welcome\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(greet, tmp_path / "server"), listening(tmp_path, (None, NAMES)):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "asked")
        assert await reader.readline() == b"220 welcome\r\n"
        writer.close()


async def test_what_is_no_tls_is_told_as_such(tmp_path: Path):
    async with listening(tmp_path, (NAMES,)) as bed:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "asked")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert not await reader.read()
        writer.close()
        (line,) = await bed.logged(1)
    assert (line.protocol, line.outcome) == (b"no TLS", Outcome.DENIED)
