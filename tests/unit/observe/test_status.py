"""Answers about servers as text."""

from mycel.api import observer_pb2, relay_pb2
from mycel.observe.status import namespaces_text, nodes_text, status_text, total


def status(flows: int) -> observer_pb2.ServerStatusResponse:
    """One node's counts."""
    return observer_pb2.ServerStatusResponse(
        num_flows=flows, max_flows=4095, seen_flows=flows, uptime_ns=100 * 10**9, flows_rate=2.5
    )


def test_nodes_are_summed_up() -> None:
    """What a relay would say of two nodes and one that is silent."""
    whole = total({"n1": status(1000), "n2": status(234)}, {"n3": "no answer"})
    assert status_text(whole, output="compact") == (
        "Current/Max Flows: 1,234/8,190 (15.07%)\nFlows/s: 5.00\nConnected Nodes: 2/3\nUnavailable Nodes: 1\n  - n3\n"
    )


def test_forms_of_status() -> None:
    """Table, dict and JSON; anything else is none."""
    table = status_text(status(7), output="table")
    assert table is not None
    assert table.splitlines()[1].split() == ["7", "4,095", "7", "2.50", "1m40s", "N/A", "N/A"]
    assert "          NUM FLOWS: 7\n"[1:] in str(status_text(status(7), output="dict"))
    assert '"num_flows":"7"' in str(status_text(status(7), output="json"))
    assert status_text(status(7), output="xml") is None


def test_nodes() -> None:
    """Nodes that answered and nodes that did not."""
    node = observer_pb2.Node(
        name="n1", state=relay_pb2.NODE_CONNECTED, uptime_ns=100 * 10**9, num_flows=10, max_flows=40, seen_flows=50
    )
    assert nodes_text([node], {"n2": "gone"}, output="table") == (
        "NAME   STATUS        AGE     FLOWS/S   CURRENT/MAX-FLOWS\n"
        "n1     Connected     1m40s   0.50      10/40 ( 25.00%)\n"
        "n2     Unavailable   N/A     N/A       N/A\n"
    )


def test_namespaces() -> None:
    """Names alone, or with their cluster."""
    assert namespaces_text([("default", "a"), ("default", "b")], output="table") == "NAMESPACE\na\nb\n"
    assert namespaces_text([("default", "a")], output="wide") == "NAMESPACE   CLUSTER\na           default\n"
