"""From Envoy's log and the DNS proxy's records to the lines people read."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.agent.proxy import access_log
from mycel.agent.proxy.access_log import AccessLogs, trace_id
from mycel.agent.proxy.records import Cause, Records
from mycel.envoy.messages import message_class
from mycel.flow.enrich import Enricher
from mycel.flow.enrich import Records as Names_
from mycel.flow.kinds import Kinds
from mycel.flow.l7 import Dns, End, Half, L7Record, L7Verdict, Sheet
from mycel.flow.redact import Redaction
from mycel.model.address import format_address
from mycel.observe.printer import event_type
from tests.unit.flow.samples import CLIENT, ECHO, Names

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def entry(path: str = "/", *, code: int = 200, details: str = "via_upstream", **headers: str) -> Any:
    """An HTTPAccessLogEntry of client and echo."""
    made: Any = message_class("envoy.data.accesslog.v3.HTTPAccessLogEntry")()
    common = made.common_properties
    for end, address, port in (
        (common.downstream_remote_address, CLIENT, 40212),
        (common.downstream_local_address, ECHO, 8080),
    ):
        end.socket_address.address, end.socket_address.port_value = format_address(address), port
    common.start_time.FromNanoseconds(1_700_000_000_000_000_000)
    common.time_to_last_downstream_tx_byte.FromNanoseconds(5_900_000)
    made.protocol_version = 2
    made.request.request_method, made.request.scheme = 1, "http"
    made.request.authority, made.request.path = "echo:8080", path
    made.request.request_headers.update(headers)
    made.response.response_code.value, made.response.response_code_details = code, details
    return made


def records_of(entry: Any, *, log_name: str, redaction: Redaction | None = None) -> list[L7Record]:
    """With nothing said about what to hide."""
    return access_log.records_of(entry, log_name=log_name, redaction=redaction or Redaction())


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
    """With the URL as the client wrote it, before anything was rewritten, and the time it took."""
    asked = entry("/rewritten")
    asked.request.original_path = "/foo?a=1"
    assert lines(*records_of(asked, log_name="shop/web/listener")) == [
        "http-request -> HTTP/1.1 GET http://echo:8080/foo?a=1",
        "http-response <- HTTP/1.1 200 5ms (GET http://echo:8080/foo?a=1)",
    ]


def test_headers_of_a_request_and_of_its_answer() -> None:
    """Each half has its own: the usual ones where the client sent them, and those that are allowed."""
    made = entry("/?token=1", traceparent=PARENT)
    made.request.request_headers.update({"x-team": "a", "authorization": "secret"})
    made.request.user_agent, made.request.authority = "curl/8", "me:secret@echo:8080"
    made.response.response_headers["x-served-by"] = "b"
    allowing = Redaction(enabled=True, url_query=True, allow=frozenset({"x-team", "x-served-by"}))
    asked, answered = records_of(made, log_name="shop/web/listener", redaction=allowing)
    assert asked.http is not None
    assert answered.http is not None
    assert asked.http.headers == (("User-Agent", "HUBBLE_REDACTED"), ("X-Team", "a"))
    assert answered.http.headers == (("X-Served-By", "b"),)
    assert "secret" not in repr((asked, answered))
    assert asked.http.url == "http://me:HUBBLE_REDACTED@echo:8080/"
    assert lines(asked) == ["http-request -> HTTP/1.1 GET http://me:HUBBLE_REDACTED@echo:8080/"]


def test_a_long_url_is_cut() -> None:
    """With a mark, so that nobody takes it for the whole."""
    asked, answered = records_of(entry("/" + "x" * 50_000), log_name="shop/web/listener")
    assert asked.http is not None
    assert answered.http is not None
    assert (len(asked.http.url), asked.http.url[-2:]) == (2048, "x…")
    assert answered.http.url is asked.http.url  # kept once


def test_the_rule_that_let_it_through() -> None:
    """As Envoy's RBAC calls it; flows name the policies behind it, requests and answers alike."""
    asked = entry("/foo")
    asked.common_properties.metadata.filter_metadata["envoy.filters.http.rbac"].update(
        {"enforced_effective_policy_id": "2/1"}
    )
    records = records_of(asked, log_name="policy/egress/10007")
    assert [each.rule for each in records] == ["2/1", "2/1"]
    names = Names_()
    (rows,) = Enricher(Names(), names).enrich_l7([records], pytest.fail, wall_offset_ns=0)
    found = [kind.flow for kind in Kinds(names, node_name="default/n1").sort(rows).kinds]
    assert [[each.labels[-1] for each in flow.egress_allowed_by] for flow in found] == [
        ["mycel:rule=egress 2/1 False"]
    ] * 2


class Stream:
    """What grpclib gives a handler."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)

    async def recv_message(self) -> bytes | None:
        """The next one."""
        return self._messages.pop(0) if self._messages else None


def logged(*entries: Any, name: str = "") -> bytes:
    """A message of Envoy's log."""
    made: Any = message_class("envoy.service.accesslog.v3.StreamAccessLogsMessage")()
    made.identifier.log_name = name
    made.http_logs.log_entry.extend(entries)
    return made.SerializeToString()


async def serve(*messages: bytes) -> tuple[list[Sheet], Records]:
    """What comes of a stream of messages."""
    records = Records()
    (handler,) = AccessLogs(records, Redaction()).__mapping__().values()
    await handler.func(Stream(*messages))  # type: ignore[arg-type]
    return (await records.take()).sheets, records


async def test_what_is_counted_is_what_is_read() -> None:
    """Of each message, without reading it: requests, answers, denials. Later messages have the first one's name."""
    denied = entry(code=403, details="rbac_access_denied_matched_policy[none]")
    first, second = logged(entry(), denied, entry(code=0), name="policy/ingress/10007"), logged(denied)
    (one, two), _ = await serve(first, second)
    for sheet, forwarded, dropped in ((one, 3, 1), (two, 0, 1)):
        assert (sheet.forwarded, sheet.dropped, sheet.size) == (forwarded, dropped, len((first, second)[sheet is two]))
        found = sheet.records()
        assert sum(each.verdict == L7Verdict.DROPPED for each in found) == dropped
        assert len(found) == forwarded + dropped
        assert {(each.listener, each.ingress) for each in found} == {(10007, True)}


async def test_bytes_that_are_no_message_cost_themselves() -> None:
    """They are counted, and what comes after them is taken."""
    sheets, records = await serve(b"\xff\xff", logged(entry(), name="policy/egress/10007"))
    assert [each.forwarded for each in sheets] == [2]
    assert records.losses == {Cause.UNUSABLE: 1}


def test_a_denied_request_has_no_answer() -> None:
    """The 403 is no server's."""
    (record,) = records_of(
        entry("/foo", code=403, details="rbac_access_denied_matched_policy[none]", traceparent=PARENT),
        log_name="policy/ingress/10007",
    )
    assert (record.verdict, record.ingress, record.listener) == (L7Verdict.DROPPED, True, 10007)
    assert record.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert lines(record) == ["http-request -> HTTP/1.1 GET http://echo:8080/foo"]


@pytest.mark.parametrize("header", ["", "00-short-1-01", PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32)])
def test_what_is_no_trace(header: str) -> None:
    assert trace_id(header) == ""


@pytest.mark.parametrize(
    ("half", "dns", "line"),
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
def test_names(half: Half, dns: Dns, line: str) -> None:
    """As Hubble words them."""
    ends = End(format_address(CLIENT), 40000), End(format_address(ECHO), 53)
    assert lines(L7Record(1, half, L7Verdict.FORWARDED, *ends, "UDP", 15001, dns=dns)) == [line]
