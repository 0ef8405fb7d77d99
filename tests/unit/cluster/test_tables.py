"""What `kubectl get` prints."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cluster.apiserver.tables.column import duration
from mycel.cluster.apiserver.tables.jsonpath import column_value
from mycel.cluster.apiserver.tables.pod import pod_state
from mycel.cluster.apiserver.tables.printers import PRINTERS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (130, "2m10s"),
        (599, "9m59s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (11000, "3h3m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (180000, "2d2h"),
        (700000, "8d"),
        (63072000, "2y"),
        (64000000, "2y10d"),
        (-5, "<invalid>"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    """Two units while the first is small, as kubectl's HumanDuration."""
    assert duration(seconds) == text


def _pod(*states: dict[str, Any], init: tuple[dict[str, Any], ...] = (), phase: str = "Pending", **status: Any) -> Any:
    def statuses(given: tuple[dict[str, Any], ...], prefix: str) -> list[dict[str, Any]]:
        return [
            {
                "name": f"{prefix}{n}",
                "state": {k: v for k, v in s.items() if k in ("running", "waiting", "terminated")},
                "ready": s.get("ready", False),
                "restartCount": s.get("restarts", 0),
            }
            for n, s in enumerate(given)
        ]

    return {
        "metadata": {"name": "p"},
        "spec": {
            "containers": [{"name": f"c{n}"} for n in range(max(len(states), 1))],
            "initContainers": [{"name": f"i{n}"} for n in range(len(init))],
        },
        "status": {
            "phase": phase,
            "containerStatuses": statuses(states, "c"),
            "initContainerStatuses": statuses(init, "i"),
            **status,
        },
    }


RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}, "ready": True}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("pod", "status", "ready"),
    [
        (_pod(), "Pending", 0),
        (_pod({"waiting": {"reason": "ContainerCreating"}}), "ContainerCreating", 0),
        (_pod(RUNNING, phase="Running"), "Running", 1),
        (
            _pod(RUNNING, {"waiting": {"reason": "CrashLoopBackOff"}, "restarts": 3}, phase="Running"),
            "CrashLoopBackOff",
            1,
        ),
        (_pod({"waiting": {"reason": "ImagePullBackOff"}}), "ImagePullBackOff", 0),
        (_pod({"terminated": {"exitCode": 0, "reason": "Completed"}}, phase="Succeeded"), "Completed", 0),
        (_pod({"terminated": {"exitCode": 1, "reason": "Error"}}, phase="Failed"), "Error", 0),
        (_pod({"terminated": {"exitCode": 3}}, phase="Failed"), "ExitCode:3", 0),
        (_pod({"terminated": {"exitCode": 137, "signal": 9}}, phase="Failed"), "Signal:9", 0),
        (_pod({"terminated": {"exitCode": 0, "reason": "Completed"}}, RUNNING, phase="Running", **READY), "Running", 1),
        (_pod({"terminated": {"exitCode": 0, "reason": "Completed"}}, RUNNING, phase="Running"), "NotReady", 1),
        (_pod({"waiting": {"reason": "PodInitializing"}}, init=({"running": {}},)), "Init:0/1", 0),
        (
            _pod({"waiting": {"reason": "PodInitializing"}}, init=({"terminated": {"exitCode": 0}}, {"waiting": {}})),
            "Init:1/2",
            0,
        ),
        (_pod({}, init=({"terminated": {"exitCode": 1, "reason": "Error"}},)), "Init:Error", 0),
        (_pod({}, init=({"waiting": {"reason": "CrashLoopBackOff"}},)), "Init:CrashLoopBackOff", 0),
        (_pod(RUNNING, phase="Running", reason="Evicted"), "Evicted", 1),
    ],
)
def test_pod_status_words(pod: Any, status: str, ready: int) -> None:
    """The STATUS and READY columns, read off the containers."""
    word, count, _, _, _ = pod_state(pod)
    assert (word, count) == (status, ready)


def test_deleted_pod_is_terminating() -> None:
    """Whatever its containers say."""
    pod = _pod(RUNNING, phase="Running")
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert pod_state(pod)[0] == "Terminating"


def test_every_printer_takes_an_empty_object() -> None:
    """An object with metadata only still gives a row as wide as the columns."""
    for name, printer in PRINTERS.items():
        cells = printer.cells({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}})
        assert len(cells) == len(printer.columns), name
        assert "x" in cells, name


def test_node_roles_and_addresses() -> None:
    """Roles from labels, Ready and cordoned in one word."""
    node = {
        "metadata": {
            "name": "n",
            "labels": {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/etcd": ""},
        },
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "False"}],
            "addresses": [{"type": "InternalIP", "address": "172.18.0.2"}],
            "nodeInfo": {"kubeletVersion": "v1.32.4"},
        },
    }
    cells = PRINTERS["nodes"].cells(node)
    assert cells[:3] == ["n", "NotReady,SchedulingDisabled", "control-plane,etcd"]
    assert cells[4:7] == ["v1.32.4", "172.18.0.2", "<none>"]


OBJECT = {
    "spec": {"a": [{"b": 1}, {"b": 2}], "k.8s/x": "dot", "flag": False},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "kind", "value"),
    [
        (".spec.a[1].b", "integer", 2),
        (".spec.a[*].b", "string", "1,2"),
        (".spec.a[-1].b", "integer", 2),
        (r".spec.k\.8s/x", "string", "dot"),
        (".spec['k.8s/x']", "string", "dot"),
        ('.status.conditions[?(@.type=="Ready")].status', "string", "True"),
        (".status.conditions[?(@.type=='Other')].status", "string", "False"),
        (".spec.flag", "boolean", False),
        (".spec.nothing.at.all", "string", None),
        (".spec.a[9].b", "integer", None),
        ("{.spec.a[0].b}", "integer", 1),
        (".spec.a", "string", '[{"b":1},{"b":2}]'),
        ("not a path", "string", None),
    ],
)
def test_printer_columns_of_crds(path: str, kind: str, value: Any) -> None:
    """The JSONPath subset of additionalPrinterColumns."""
    assert column_value(OBJECT, path, kind=kind) == value
