"""Lines as the stock client of 1.19 prints them."""

from typing import Any

import pytest
from google.protobuf import json_format

from mycel.api import flow_pb2 as pb
from mycel.api import observer_pb2, relay_pb2
from mycel.observe.printer import Output, Printer, Style

AT = "2025-12-18T14:07:37.200Z"
CLIENT = {"identity": 2310, "namespace": "default", "pod_name": "client"}
COREDNS = {"identity": 1290, "namespace": "kube-system", "pod_name": "coredns-7c"}
ECHO = {"identity": 991, "namespace": "default", "pod_name": "echo"}
DNS = {"UDP": {"source_port": 44805, "destination_port": 53}}
SYN = {"TCP": {"source_port": 40214, "destination_port": 8080, "flags": {"SYN": True}}}


def response(**fields: Any) -> observer_pb2.GetFlowsResponse:
    """A packet of client to coredns, with changes; None takes a field away."""
    flow: dict[str, Any] = {
        "time": AT,
        "verdict": "FORWARDED",
        "IP": {"source": "10.0.0.1", "destination": "10.0.0.2", "ipVersion": "IPv4"},
        "l4": DNS,
        "source": CLIENT,
        "destination": COREDNS,
        "node_name": "default/n1",
        "event_type": {"type": 4, "sub_type": 4},
        "is_reply": False,
        "Summary": "UDP",
    }
    flow |= fields
    present = {key: value for key, value in flow.items() if value is not None}
    return json_format.ParseDict(
        {"flow": present, "node_name": "default/n1", "time": AT}, observer_pb2.GetFlowsResponse()
    )


def printed(*responses: observer_pb2.GetFlowsResponse, **style: Any) -> str:
    """Standard output, or standard error where that is all there is."""
    out: list[str] = []
    error: list[str] = []
    printer = Printer(Style(**style), out=out.append, error=error.append)
    for each in responses:
        printer.write(each)
    printer.finish()
    return "".join(out) or "".join(error)


HTTP = {"type": "REQUEST", "http": {"method": "GET", "url": "http://echo:8080/foo", "protocol": "HTTP/1.1"}}
QUERY = {"type": "REQUEST", "dns": {"query": "echo.default.svc.cluster.local.", "observation_source": "proxy"}}
ENDS = "default/client:44805 (ID:2310) -> kube-system/coredns-7c:53 (ID:1290)"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, f"{ENDS} to-overlay FORWARDED (UDP)"),
        (
            {"event_type": {"type": 5}, "policy_match_type": 2, "traffic_direction": "EGRESS"},
            f"{ENDS} policy-verdict:L3-L4 EGRESS ALLOWED (UDP)",
        ),
        (
            {"event_type": {"type": 5}, "verdict": "REDIRECTED", "traffic_direction": "INGRESS"},
            f"{ENDS} policy-verdict:none INGRESS ALLOWED (UDP)",
        ),
        (
            {"event_type": {"type": 5}, "verdict": "AUDIT"},
            f"{ENDS} policy-verdict:none TRAFFIC_DIRECTION_UNKNOWN AUDITED (UDP)",
        ),
        (
            {
                "event_type": {"type": 129},
                "l7": QUERY,
                "Summary": "DNS Query echo.default.svc.cluster.local. A",
            },
            f"{ENDS} dns-request proxy FORWARDED (DNS Query echo.default.svc.cluster.local. A)",
        ),
        (
            {
                "event_type": {"type": 129},
                "l7": HTTP,
                "l4": {"TCP": {"source_port": 40212, "destination_port": 8080}},
                "destination": ECHO,
                "verdict": "DROPPED",
                "Summary": "HTTP/1.1 GET http://echo:8080/foo",
            },
            "default/client:40212 (ID:2310) -> default/echo:8080 (ID:991) http-request DROPPED "
            "(HTTP/1.1 GET http://echo:8080/foo)",
        ),
        (
            {
                "event_type": {"type": 1, "sub_type": 133},
                "l4": SYN,
                "destination": ECHO,
                "verdict": "DROPPED",
                "is_reply": None,
                "Summary": "TCP Flags: SYN",
            },
            "default/client:40214 (ID:2310) <> default/echo:8080 (ID:991) Policy denied DROPPED (TCP Flags: SYN)",
        ),
        (
            {"event_type": {"type": 5}, "verdict": "DROPPED", "is_reply": None, "traffic_direction": "EGRESS"},
            f"{ENDS.replace('->', '<>')} policy-verdict:none EGRESS DENIED (UDP)",
        ),
        (
            {"is_reply": True},
            "kube-system/coredns-7c:53 (ID:1290) <- default/client:44805 (ID:2310) to-overlay FORWARDED (UDP)",
        ),
        (
            {"destination": {"identity": 2}, "destination_names": ["a.example", "b.example"]},
            "default/client:44805 (ID:2310) -> a.example,b.example:53 (world) to-overlay FORWARDED (UDP)",
        ),
        (
            {"destination": {"identity": 1}, "destination_service": {"name": "dns", "namespace": "kube-system"}},
            "default/client:44805 (ID:2310) -> kube-system/dns:53 (host) to-overlay FORWARDED (UDP)",
        ),
        (
            {"IP": {"source": "fd00::1", "destination": "fd00::2"}, "source": None, "destination": None},
            "[fd00::1]:44805 (unknown) -> [fd00::2]:53 (unknown) to-overlay FORWARDED (UDP)",
        ),
        (
            {"IP": None, "ethernet": {"source": "02:00:00:00:00:01"}, "Summary": "ARP", "is_reply": None},
            "02:00:00:00:00:01 (ID:2310) <>  (ID:1290) to-overlay FORWARDED (ARP)",
        ),
        (
            {"event_type": {"type": 7}, "sock_xlate_point": 2, "verdict": "TRANSLATED", "auth_type": "SPIRE"},
            f"{ENDS} post-xlate-fwd TRANSLATED (UDP; Auth: SPIRE)",
        ),
        ({"event_type": {"type": 1, "sub_type": 99}}, f"{ENDS} 99, 0 FORWARDED (UDP)"),
        ({"event_type": None}, f"{ENDS} UNKNOWN FORWARDED (UDP)"),
        ({"Summary": "\x1b[2Jbad\r"}, f"{ENDS} to-overlay FORWARDED (^[[2Jbad\\r)"),
    ],
)
def test_compact(fields: dict[str, Any], line: str) -> None:
    """One line per flow."""
    assert f"Dec 18 14:07:37.200: {line}\n" == printed(response(**fields))


def test_style() -> None:
    """Node names, numbers, other times, colours, no time at all."""
    assert "Dec 18 14:07:37.200 [default/n1]: default" in printed(response(), node_name=True)
    assert "10.0.0.1:44805 (ID:2310) -> 10.0.0.2:53 (ID:1290)" in printed(response(), translate_addresses=False)
    assert printed(response(), time_format="RFC3339").startswith("2025-12-18T14:07:37Z: ")
    assert "\x1b[36mdefault/client:\x1b[33m44805\x1b[0m\x1b[0m \x1b[35m(ID:2310)\x1b[0m" in printed(
        response(), color=True
    )
    assert printed(response(time=None)).startswith("N/A: ")


def test_policy_names() -> None:
    """Who allowed it, where asked for; each object once, whatever number of its rules did."""
    policy = {"name": "dns", "namespace": "shop", "kind": "CiliumNetworkPolicy"}
    wide = {"name": "dns", "kind": "CiliumClusterwideNetworkPolicy"}
    allowed = response(event_type={"type": 5}, traffic_direction="EGRESS", egress_allowed_by=[policy, policy, wide])
    said = "EGRESS ALLOWED BY shop/dns (CiliumNetworkPolicy), dns (CiliumClusterwideNetworkPolicy) (UDP)"
    assert said in printed(allowed, policy_names=True)


def test_dict() -> None:
    """Key and value, records parted by a rule."""
    record = (
        "  TIMESTAMP: Dec 18 14:07:37.200\n"
        "     SOURCE: default/client:44805\n"
        "DESTINATION: kube-system/coredns-7c:53\n"
        "       TYPE: to-overlay\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: UDP\n"
    )
    assert f"{record}------------\n{record}" == printed(response(), response(), output=Output.DICT)


def test_table() -> None:
    """Columns as wide as their widest cell and three spaces."""
    lines = printed(response(), response(verdict="DROPPED"), output=Output.TABLE).splitlines()
    assert lines == [
        "TIMESTAMP             SOURCE                 DESTINATION                 TYPE         VERDICT     SUMMARY",
        "Dec 18 14:07:37.200   default/client:44805   kube-system/coredns-7c:53   to-overlay   FORWARDED   UDP",
        "Dec 18 14:07:37.200   default/client:44805   kube-system/coredns-7c:53   to-overlay   DROPPED     UDP",
    ]


def test_json_reads_back() -> None:
    """A line of JSON is the response; the legacy form is the flow alone."""
    sent = response()
    line = printed(sent, output=Output.JSON)
    assert line.startswith('{"flow":{"time":"2025-12-18T14:07:37.200Z","verdict":"FORWARDED","IP":{')
    assert sent == json_format.Parse(line, observer_pb2.GetFlowsResponse())
    assert sent.flow == json_format.Parse(printed(sent, output=Output.LEGACY_JSON), pb.Flow())


def test_lost_events() -> None:
    """What was lost is a line of its own."""
    lost = observer_pb2.GetFlowsResponse(
        lost_events=pb.LostEvent(source=pb.HUBBLE_RING_BUFFER, num_events_lost=3), node_name="default/n1"
    )
    lost.time.FromJsonString(AT)
    assert printed(lost) == "Dec 18 14:07:37.200 EVENTS LOST: HUBBLE_RING_BUFFER CPU(0) 3\n"
    lost.lost_events.first.FromJsonString(AT)
    lost.lost_events.last.FromJsonString(AT)
    assert printed(lost).endswith(" 3 (first: Dec 18 14:07:37.200, last: Dec 18 14:07:37.200)\n")


def test_node_status() -> None:
    """Failures are told on standard error; the rest only when debugging."""
    status = observer_pb2.GetFlowsResponse(node_name="relay")
    status.time.FromJsonString(AT)
    status.node_status.node_names.extend(["n1", "n2"])
    status.node_status.state_change = relay_pb2.NODE_CONNECTED
    assert printed(status) == ""
    connected = "Dec 18 14:07:37.200 [relay]: Receiving flows from 2 nodes: n1, n2\n"
    assert connected == printed(status, debug=True)
    status.node_status.state_change = relay_pb2.NODE_UNAVAILABLE
    assert printed(status) == "Dec 18 14:07:37.200 [relay]: 2 nodes are unavailable: n1, n2\n"
    status.node_status.state_change, status.node_status.message = relay_pb2.NODE_ERROR, "no way"
    assert printed(status) == 'Dec 18 14:07:37.200 [relay]: Error "no way" on 2 nodes: n1, n2\n'
    status.node_status.node_names.extend(f"node-with-a-long-name-{number}" for number in range(5))
    assert "n1, n2, node-with-a-long-name-0 (and 4 more)\n" in printed(status)
