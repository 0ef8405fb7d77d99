"""Records of layer 7 on their way: what cannot become a flow costs itself, is counted and told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

import msgspec
import pytest

from mycel.agent import views
from mycel.agent.flows import feed_l7
from mycel.agent.proxy.envoy_drops import follow_drops, parse_dropped, read_dropped
from mycel.agent.proxy.records import Cause, Records, receive, words
from mycel.dnsproxy.records import Listener
from mycel.dnsproxy.records import Records as DnsRecords
from mycel.dnsproxy.sockets import Place
from mycel.dnsproxy.wire import FAILED, Query
from mycel.flow.l7 import RECORD_LIMIT, Dns, End, Half, Http, L7Record, L7Verdict, Loss, decode, encode, halves, weight
from mycel.model.address import format_address
from mycel.observe.pipeline import FlowPipeline
from tests.unit.flow.samples import CLIENT, ECHO, Names

GOOD = L7Record(
    1_700_000_000_000_000_000,
    Half.REQUEST,
    L7Verdict.FORWARDED,
    End(format_address(CLIENT), 40212),
    End(format_address(ECHO), 8080),
    "TCP",
    10007,
    http=Http("GET", "http://echo:8080/", "HTTP/1.1"),
)


@contextlib.asynccontextmanager
async def fed(records: Records):
    """A pipeline that takes the records, until the block ends."""
    pipeline = FlowPipeline(Names(), node_name="n1", refuse=records.refuse)
    task = asyncio.create_task(feed_l7(records, pipeline))
    try:
        yield pipeline
        assert not task.done()
    finally:
        task.cancel()


@pytest.mark.parametrize(
    "changes",
    [
        {"source": End("", 40212)},
        {"destination": End("echo", 8080)},
        {"destination": End(format_address(ECHO), 70_000)},
        {"time_ns": -1},
        {"listener": -1},
    ],
)
async def test_a_record_that_can_be_no_flow_costs_only_itself(
    changes: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """Those before, beside and after it are flows; it is counted, told as lost, and logged once."""
    records, bad = Records(), msgspec.structs.replace(GOOD, **changes)
    async with fed(records) as pipeline:
        records.add(GOOD, bad, GOOD)
        await asyncio.sleep(0)
        records.add(bad)
        await asyncio.sleep(0)
        records.add(GOOD)
        await asyncio.sleep(0.05)
    statistics = pipeline.store.statistics()
    assert (statistics.seen, statistics.lost) == (3, 2)
    assert records.losses == {Cause.UNUSABLE: 2}
    assert sum("layer 7" in each.getMessage() for each in caplog.records) == 1


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"{",
        b'{"type":"message"}',
        encode(GOOD).replace(b"8080,", b"70000,").replace(b":8080}", b":70000}"),
        encode(GOOD).replace(b'"listener":10007', b'"listener":10007,"latency_ns":-5'),
        encode(msgspec.structs.replace(GOOD, http=None, dns=None)),
        encode(msgspec.structs.replace(GOOD, http=Http("GET", "x" * 40_000))),
        b'{"type":"loss","count":-1}',
    ],
)
async def test_a_datagram_that_is_no_record_is_counted(
    datagram: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And the next one is taken."""
    records = Records()
    transport = await receive(tmp_path / "s", records)
    with contextlib.closing(transport), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for each in (datagram, encode(GOOD)):
            sender.sendto(each, str(tmp_path / "s"))
        found, lost = [], 0
        while not found:
            found, _, more = await records.take()
            lost += more
    assert (found, lost, records.losses) == ([GOOD], 1, {Cause.UNUSABLE: 1})
    assert any(each.levelno == logging.ERROR for each in caplog.records)


async def test_a_datagram_has_many_records(tmp_path: Path) -> None:
    """One that is none costs itself."""
    records = Records()
    transport = await receive(tmp_path / "s", records)
    with contextlib.closing(transport), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"\n".join((encode(GOOD), encode(Loss(3)), b"{", encode(GOOD))), str(tmp_path / "s"))
        found, _, lost = await records.take()
    assert (found, lost) == ([GOOD, GOOD], 4)
    assert records.losses == {Cause.DNS_PROXY: 3, Cause.UNUSABLE: 1}


@pytest.mark.parametrize(("url", "fit"), [("http://echo/", 16_384), ("http://echo/" + "x" * 100_000, 167)])
async def test_what_waits_is_bounded_in_number_and_in_bytes(url: str, fit: int) -> None:
    """What finds no room is counted, and nobody waits."""
    records = Records()
    record = msgspec.structs.replace(GOOD, http=Http("GET", url))
    for _ in range(20_000):
        records.add(record)
    found, _, lost = await records.take()
    assert (len(found), lost) == (fit, 20_000 - fit)
    assert sum(map(weight, found)) <= 16 << 20
    records.add(record)
    assert await records.take() == ([record], [], 0)


async def test_messages_no_flow_refers_to_are_forgotten_by_their_bytes() -> None:
    """However few there are."""
    pipeline = FlowPipeline(Names(), node_name="n1", capacity=15, refuse=pytest.fail)
    for number in range(200):
        long = Http("GET", f"http://echo/{number}" + "x" * 200_000)
        pipeline.feed_l7([msgspec.structs.replace(GOOD, http=long)])
    assert len(pipeline.store.records.l7) < 180


async def test_the_dns_proxy_tells_what_it_could_not_send(tmp_path: Path) -> None:
    """As soon as there is room again, also when no further query comes. Many go together."""
    place = tmp_path / "s"
    sender = DnsRecords(place)
    with contextlib.closing(sender), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taker:
        taker.bind(str(place))
        taker.setblocking(False)
        sender.look()
        for number in range(5_000):
            sender.tell(
                Listener(15001, "UDP"),
                Query("x.example.", 1, b""),
                Place(format_address(CLIENT), 40000),
                Place(format_address(ECHO), 53),
                L7Verdict.FORWARDED,
                FAILED if number % 2 else None,
            )
        await asyncio.sleep(0.05)
        datagrams: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                datagrams.append(taker.recv(65536))
        lines = [decode(line) for each in datagrams for line in each.split(b"\n")]
        came = sum(len(halves(line)) for line in lines if isinstance(line, L7Record))
        assert max(map(len, datagrams)) <= RECORD_LIMIT
        assert came > 50 * len(datagrams)
        sender.look()
        assert decode(taker.recv(65536)) == Loss(7_500 - came)
        sender.look()
        with pytest.raises(BlockingIOError):
            taker.recv(65536)
    assert 0 < came < 7_500


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("HTTP/1.1 200 OK\r\n\r\naccess_logs.open_telemetry_access_log.logs_dropped: 2193\n", 2193),
        ("HTTP/1.1 200 OK\r\n\r\n", 0),
        ("HTTP/1.1 503 no\r\n\r\n", None),
        ("", None),
    ],
)
def test_envoys_counter(answer: str, count: int | None) -> None:
    assert parse_dropped(answer) == count


async def test_what_envoy_drops_is_counted_from_now_on(tmp_path: Path) -> None:
    """Not what an earlier agent has told; another Envoy begins at nothing, and one that is away drops nothing."""
    admin, records = tmp_path / "admin.sock", Records()
    counts = iter((5, 9, None, 9, 2, 2))
    asked = asyncio.Event()
    answering: set[asyncio.Task[None] | None] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        count = next(counts, 2)
        if count is not None:
            line = f"access_logs.open_telemetry_access_log.logs_dropped: {count}\n"
            writer.write(f"HTTP/1.1 200 OK\r\n\r\n{line}".encode())
        if count == 2:
            asked.set()
        writer.close()
        await writer.wait_closed()

    assert await read_dropped(admin) is None
    server = await asyncio.start_unix_server(answer, str(admin))
    task = asyncio.create_task(follow_drops(admin, records, look_s=0.001))
    try:
        async with asyncio.timeout(60):
            await asked.wait()
            while records.losses.get(Cause.ENVOY, 0) < 6:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
    finally:
        task.cancel()
        server.close()
        await asyncio.gather(task, *filter(None, answering), return_exceptions=True)
    assert records.losses == {Cause.ENVOY: 4 + 2}


def test_losses_are_said_in_status_and_metrics() -> None:
    """Only when there are any; a metric is there from the start."""
    assert words({}) == words({Cause.UNUSABLE: 0}) == ""
    assert words({Cause.DNS_PROXY: 3, Cause.UNUSABLE: 1}).endswith("start: 3 dns-proxy, 1 unusable")
    rows = views.metrics({}, endpoints=0, targets=(), policy_revision=1, l7_losses={"dns-proxy": 3})
    assert 'mycel_l7_records_lost_total{cause="dns-proxy"} 3' in views.prometheus(rows)


def test_names_are_of_dns_or_http() -> None:
    """What was encoded is what is decoded."""
    dns = msgspec.structs.replace(GOOD, http=None, dns=Dns("x.", ("A",)))
    assert [decode(encode(each)) for each in (GOOD, dns, Loss(3))] == [GOOD, dns, Loss(3)]
