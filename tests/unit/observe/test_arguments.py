"""Flags become filters by the stock client's rules."""

import pytest

from mycel.api import flow_pb2 as pb
from mycel.observe.arguments import BadFlag, build_filters, parse_identity
from mycel.observe.protojson import to_json


def lists(line: str) -> tuple[list[str], list[str]]:
    """Both lists as JSON for a command line."""
    words = line.split()
    flags: list[tuple[str, str]] = []
    while words:
        name = words.pop(0).removeprefix("--")
        flags.append((name, words.pop(0) if words and not words[0].startswith("--") else "true"))
    filters = build_filters(flags)
    return [to_json(each) for each in filters.whitelist], [to_json(each) for each in filters.blacklist]


@pytest.mark.parametrize(
    ("line", "allow"),
    [
        ("", []),
        ("--from-pod a", ['{"source_pod":["a"]}']),
        ("--pod a", ['{"source_pod":["a"]}', '{"destination_pod":["a"]}']),
        ("--pod a --pod ns/b", ['{"source_pod":["a","ns/b"]}', '{"destination_pod":["a","ns/b"]}']),
        ("--namespace ns", ['{"source_pod":["ns/"]}', '{"destination_pod":["ns/"]}']),
        ("--all-namespaces", ['{"source_pod":["/"]}', '{"destination_pod":["/"]}']),
        ("--from-namespace ns --from-pod a", ['{"source_pod":["ns/a"]}']),
        ("--from-namespace ns --to-namespace other", ['{"source_pod":["ns/"],"destination_pod":["other/"]}']),
        ("--to-service web --to-namespace ns", ['{"destination_service":["ns/web"]}']),
        (
            "--ip 10.0.0.1 --verdict DROPPED",
            [
                '{"source_ip":["10.0.0.1"],"verdict":["DROPPED"]}',
                '{"destination_ip":["10.0.0.1"],"verdict":["DROPPED"]}',
            ],
        ),
        ("--type trace:to-endpoint", ['{"event_type":[{"type":4,"match_sub_type":true}]}']),
        (
            "--type drop:133 --type l7",
            ['{"event_type":[{"type":1,"match_sub_type":true,"sub_type":133},{"type":129}]}'],
        ),
        ("--type 200", ['{"event_type":[{"type":200}]}']),
        ("--identity world", ['{"source_identity":[2]}', '{"destination_identity":[2]}']),
        ("--from-workload Deployment/web", ['{"source_workload":[{"name":"web","kind":"Deployment"}]}']),
        ("--tcp-flags syn,ack", ['{"tcp_flags":[{"SYN":true,"ACK":true}]}']),
        ("--ipv4 --ip-version none", ['{"ip_version":["IPv4","IP_NOT_USED"]}']),
        ("--http-header a:b:c", ['{"http_header":[{"key":"a","value":"b:c"}]}']),
        ("--traffic-direction Egress", ['{"traffic_direction":["EGRESS"]}']),
        ("--unencrypted", ['{"encrypted":[false]}']),
        ("--interface eth0", ['{"interface":[{"name":"eth0"}]}']),
        ("--drop-reason-desc POLICY_DENIED", ['{"drop_reason_desc":["POLICY_DENIED"]}']),
        ("--snat-ip 10.0.0.1", ['{"source_ip_xlated":["10.0.0.1"]}']),
        ("--cluster a", ['{"source_cluster_name":["a"]}', '{"destination_cluster_name":["a"]}']),
    ],
)
def test_whitelist(line: str, allow: list[str]) -> None:
    """Flags of one end fill one filter, flags of either end two."""
    assert (allow, []) == lists(line)


def test_not_turns_the_next_flag_only() -> None:
    """The others stay in the whitelist."""
    allow, deny = lists("--not --from-pod a --protocol tcp --not --port 53")
    assert allow == ['{"protocol":["tcp"]}']
    assert deny == [
        '{"source_pod":["a"],"source_port":["53"]}',
        '{"source_pod":["a"],"destination_port":["53"]}',
    ]


@pytest.mark.parametrize(
    "line",
    [
        "--pod a --from-pod b",
        "--ip 1.1.1.1 --fqdn a.b",
        "--namespace a --from-pod b",
        "--from-namespace a --from-pod b/c",
        "--to-pod a/b --to-service c/d",
        "--encrypted --unencrypted",
        "--verdict forwarded",
        "--drop-reason-desc NONE",
        "--type nothing",
        "--type trace:nowhere",
        "--identity nobody",
        "--identity 99999999999",
        "--tcp-flags x",
        "--http-header x",
        "--ip-trace-id 0",
        "--traffic-direction up",
        "--not --not --pod a",
        "--pod a --not",
    ],
)
def test_refused(line: str) -> None:
    """What means nothing is refused before anything is sent."""
    with pytest.raises(BadFlag):
        lists(line)


def test_conflicts_are_per_list() -> None:
    """The same flags on both sides of --not do not meet."""
    assert lists("--not --pod a --from-pod b")[0] == ['{"source_pod":["b"]}']


def test_identities() -> None:
    """Names of reserved ones, numbers of all."""
    assert [parse_identity("kube-apiserver"), parse_identity("1234")] == [7, 1234]
    assert pb.FlowFilter(source_identity=[2]) == build_filters([("from-identity", "world")]).whitelist[0]
