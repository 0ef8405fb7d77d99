"""From Envoy's log and the DNS proxy's records to the lines people read."""

from __future__ import annotations

import pytest
from google.protobuf.empty_pb2 import Empty

from mycel.agent.proxy import access_log
from mycel.agent.proxy.access_log import AccessLogs, trace_id
from mycel.agent.proxy.otlp import export_class
from mycel.agent.proxy.records import Cause, Records
from mycel.envoy.request_log import TEXT_BYTES, Line, Outcome, is_line, read_line
from mycel.flow.enrich import Enricher
from mycel.flow.enrich import Records as Names_
from mycel.flow.kinds import Kinds
from mycel.flow.l7 import Dns, End, Half, Http, L7Record, L7Verdict, Sheet
from mycel.flow.redact import Redaction
from mycel.model.address import format_address
from mycel.observe.printer import event_type
from tests.unit.flow.samples import CLIENT, ECHO, WALL_NS, Names

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def line(**fields: str) -> bytes:
    """A request of client to echo, as Envoy logs it."""
    known = {
        "code": "200",
        "decision": "0/0",
        "duration_ns": "5900000",
        "client": f"{format_address(CLIENT)}:40212",
        "server": f"{format_address(ECHO)}:8080",
        "protocol": "HTTP/1.1",
        "method": "GET",
        "scheme": "http",
        "authority": "echo:8080",
        "path": "/",
    }
    headers = [f"{name}:{fields.pop(name)}" for name in list(fields) if name[0] in "<>"]
    values = [(known | fields).get(name, "-") for name in Line._fields[:-2]]
    return "\n".join(("mycel 3", *values, *headers)).encode("utf-8", "surrogateescape")


def records_of(line: bytes, *, redaction: Redaction | None = None) -> list[L7Record]:
    """What is read of a line."""
    assert is_line(line)
    return access_log.records_of(read_line(line), WALL_NS, redaction=redaction or Redaction())


def lines(*records: L7Record) -> list[str]:
    """Type, verdict, arrow and summary of each record's flow."""
    names = Names_()
    (rows,) = Enricher(Names(), names).enrich_l7([records], pytest.fail, wall_offset_ns=0)
    sorted_ = Kinds(names, node_name="default/n1").sort(rows)
    found: list[str] = []
    for number in sorted_.kind_of.tolist():
        flow = sorted_.kinds[number].flow
        assert flow.drop_reason_desc == 0
        found.append(f"{event_type(flow)} {'<-' if flow.is_reply.value else '->'} {flow.Summary}")
    return found


def test_a_request_and_its_answer() -> None:
    """With the URL as the client wrote it, and the time it took."""
    assert lines(*records_of(line(path="/foo?a=1"))) == [
        "http-request -> HTTP/1.1 GET http://echo:8080/foo?a=1",
        "http-response <- HTTP/1.1 200 5ms (GET http://echo:8080/foo?a=1)",
    ]


def test_ipv6_and_what_envoy_had_not() -> None:
    """An address in brackets; a request that was none of HTTP has no method and no URL to speak of."""
    asked, answered = records_of(
        line(client="[fd00::1]:1", server="[fd00::2]:80", method="-", scheme="-", authority="-", path="-", code="400")
    )
    assert (asked.source, asked.destination) == (End("fd00::1", 1), End("fd00::2", 80))
    assert asked.http == Http("", "http://", "HTTP/1.1")
    assert answered.http is not None
    assert answered.http.code == 400


def test_headers_of_a_request_and_of_its_answer() -> None:
    """Each half has its own: the usual ones where the client sent them, and those that are allowed.

    Envoy may still log what was allowed before.
    """
    headers = {">x-team": "a: b", ">authorization": "secret", ">x-served-by": "-", "<x-served-by": "b"}
    made = line(
        path="/?token=1", user_agent="curl/8", authority="me:secret@echo:8080", **headers, **{"<set-cookie": "secret"}
    )
    allowing = Redaction(enabled=True, url_query=True, allow=frozenset({"x-team", "x-served-by"}))
    asked, answered = records_of(made, redaction=allowing)
    assert asked.http is not None
    assert answered.http is not None
    assert asked.http.headers == (("User-Agent", "HUBBLE_REDACTED"), ("X-Team", "a: b"))
    assert answered.http.headers == (("X-Served-By", "b"),)
    assert "secret" not in repr((asked, answered))
    assert asked.http.url == "http://me:HUBBLE_REDACTED@echo:8080/"
    assert lines(asked) == ["http-request -> HTTP/1.1 GET http://me:HUBBLE_REDACTED@echo:8080/"]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    """And cost nobody anything."""
    asked, _ = records_of(line(user_agent="a\udcffb"))
    assert asked.http is not None
    assert asked.http.headers == (("User-Agent", "a\ufffdb"),)


def test_a_long_url_is_cut() -> None:
    """With a mark, so that nobody takes it for the whole: what Envoy logs of it is longer than what is shown."""
    asked, answered = records_of(line(path="/" + "x" * TEXT_BYTES))
    assert asked.http is not None
    assert answered.http is not None
    assert (len(asked.http.url), asked.http.url[-2:]) == (2048, "x…")
    assert answered.http.url is asked.http.url  # kept once


@pytest.mark.parametrize("decision", ["2/1", "allowed 2/1"])
def test_the_rule_that_let_it_through(decision: str) -> None:
    """As routes are called, and an RBAC filter notes it; flows of requests and answers name the policies behind it."""
    records = records_of(line(path="/foo", decision=decision, listener="policy/egress/10007"))
    assert [each.rule for each in records] == ["2/1", "2/1"]
    names = Names_()
    (rows,) = Enricher(Names(), names).enrich_l7([records], pytest.fail, wall_offset_ns=0)
    found = [kind.flow for kind in Kinds(names, node_name="default/n1").sort(rows).kinds]
    assert [[each.labels[-1] for each in flow.egress_allowed_by] for flow in found] == [
        ["mycel:rule=egress 2/1 False"]
    ] * 2


@pytest.mark.parametrize("decision", ["-", "- -", "allowed -", "denied", "denied -"])
def test_no_rule_let_it_through(decision: str) -> None:
    made = read_line(line(decision=decision, listener="policy/ingress/10007"))
    assert made.rule == b""
    assert (made.outcome is Outcome.DENIED) == decision.startswith("denied")


@pytest.mark.parametrize(
    ("name", "protocol", "decision", "verdict", "shown"),
    [
        ("a.test", "TLS", "policy/egress/10007 0/0", L7Verdict.FORWARDED, "l7-request -> TLS a.test"),
        ("b.test", "TLS", "denied", L7Verdict.DROPPED, "l7-request -> TLS b.test"),
        ("-", "TLS", "denied", L7Verdict.DROPPED, "l7-request -> TLS without a server name"),
        ("-", "no TLS", "denied", L7Verdict.DROPPED, "l7-request -> no TLS"),
    ],
)
def test_a_connection_with_tls(name: str, protocol: str, decision: str, verdict: L7Verdict, shown: str) -> None:
    """Its begin is all there is to see."""
    listener = "policy/egress/10007 x"
    (record,) = records_of(line(code="0", protocol=protocol, authority=name, decision=decision, listener=listener))
    assert (record.verdict, record.listener, record.ingress, record.http) == (verdict, 10007, False, None)
    assert lines(record) == [shown]


def test_listeners_of_users_have_no_rules_of_policies() -> None:
    """Whatever they call theirs; what their own filters deny is denied."""
    assert read_line(line(decision="via_upstream")).rule == b""
    denied = read_line(line(code="403", decision="rbac_access_denied_matched_policy[0/0]"))
    assert (denied.rule, denied.outcome) == (b"", Outcome.DENIED)


class Stream:
    """What grpclib gives a handler."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self.sent: list[object] = []

    async def recv_message(self) -> bytes:
        """The one there is."""
        return self._message

    async def send_message(self, message: object) -> None:
        """An answer."""
        self.sent.append(message)


def logged(*lines: bytes) -> bytes:
    """A message of Envoy's log."""
    made = export_class()()
    log = made.resource_logs.add()
    scope = log.scope_logs.add()
    for each in lines:
        record = scope.log_records.add()
        record.time_unix_nano, record.body.string_value = WALL_NS, each
    sent: bytes = made.SerializeToString()
    return sent


async def serve(message: bytes) -> tuple[list[Sheet], Records]:
    """What comes of a message, which is answered in any case."""
    records, stream = Records(), Stream(message)
    (handler,) = AccessLogs(records, Redaction()).__mapping__().values()
    await handler.func(stream)  # type: ignore[arg-type]
    assert stream.sent == [Empty()]
    return (await records.take()).sheets, records


async def test_what_is_counted_is_what_is_read() -> None:
    """Of each message, without reading it: requests, answers, denials."""
    listener = "policy/ingress/10007"
    denied = line(code="403", decision="denied", listener=listener)
    message = logged(line(listener=listener), denied, line(code="0", listener=listener))
    ((sheet,), _) = await serve(message)
    assert (sheet.forwarded, sheet.dropped, sheet.size) == (3, 1, len(message))
    found = sheet.records()
    assert [each.verdict for each in found].count(L7Verdict.DROPPED) == 1
    assert len(found) == 4
    assert {(each.listener, each.ingress) for each in found} == {(10007, True)}


@pytest.mark.parametrize(
    ("bad", "counted"),
    [
        (b"mycel 2\n" + line()[8:], 2),  # another release's
        (b"mycel 3\n200", 2),
        (b"mycel 3\n200\n0/0", 4),
        (b"", 2),
        (b"\xff\n\xfe", 2),
        (line(client="envoy://internal/"), 4),
        (line(duration_ns="soon"), 4),
    ],
)
async def test_a_line_that_is_no_request_costs_itself(bad: bytes, counted: int) -> None:
    """It is told, and no flow; those beside it are."""
    ((sheet,), records) = await serve(logged(bad, line()))
    assert sheet.forwarded == counted
    assert len(sheet.records()) == 2
    assert records.losses == {Cause.UNUSABLE: 1}


async def test_bytes_that_are_no_message_are_told() -> None:
    records = Records()
    (handler,) = AccessLogs(records, Redaction()).__mapping__().values()
    await handler.func(Stream(b"\xff\xff"))  # type: ignore[arg-type]
    assert records.losses == {Cause.UNUSABLE: 1}


def test_a_denied_request_has_no_answer() -> None:
    """The 403 is no server's."""
    (record,) = records_of(
        line(
            path="/foo",
            code="403",
            decision="denied",
            traceparent=PARENT,
            listener="policy/ingress/10007",
        )
    )
    assert (record.verdict, record.ingress, record.listener) == (L7Verdict.DROPPED, True, 10007)
    assert record.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert lines(record) == ["http-request -> HTTP/1.1 GET http://echo:8080/foo"]


@pytest.mark.parametrize("header", ["", "00-short-1-01", PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32)])
def test_what_is_no_trace(header: str) -> None:
    assert trace_id(header) == ""


@pytest.mark.parametrize(
    ("half", "dns", "shown"),
    [
        (Half.REQUEST, Dns("x.example.", ("A",)), "dns-request proxy -> DNS Query x.example. A"),
        (
            Half.RESPONSE,
            Dns("x.example.", ("A",), ips=("1.2.3.4", "5.6.7.8"), ttl=30, cnames=("y.",)),
            'dns-response proxy <- DNS Answer "1.2.3.4,5.6.7.8" CNAMEs: "y." TTL: 30 (Proxy x.example. A)',
        ),
        (
            Half.RESPONSE,
            Dns("x.example.", ("AAAA",), rcode=3),
            "dns-response proxy <- DNS Answer RCode: Non-Existent Domain TTL: 4294967295 (Proxy x.example. AAAA)",
        ),
    ],
)
def test_names(half: Half, dns: Dns, shown: str) -> None:
    """As Hubble words them."""
    ends = End(format_address(CLIENT), 40000), End(format_address(ECHO), 53)
    assert lines(L7Record(1, half, L7Verdict.FORWARDED, *ends, "UDP", 15001, dns=dns)) == [shown]
