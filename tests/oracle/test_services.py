"""Flows to services: what the model says is behind them, line by line, and that the generator asks for all of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mycel.policy.errors import PolicyInvalid
from tests.oracle.generate import OUTSIDE, state
from tests.oracle.harness import product
from tests.oracle.model import after_translation, verdict
from tests.oracle.parties import Cluster, Object
from tests.oracle.services import translated


def _pod(name: str, address: str) -> Object:
    ports = [{"name": "http", "containerPort": 8080}]
    spec = {"nodeName": "n1", "containers": [{"name": "c", "ports": ports}]}
    meta = {"namespace": "bank", "name": name, "labels": {"app": name}}
    return {"kind": "Pod", "metadata": meta, "spec": spec, "status": {"podIP": address}}


PODS = [_pod("web", "10.0.0.1"), _pod("db", "10.0.1.2"), _pod("api", "10.0.0.3")]
FLOW = {"id": "f", "from": {"pod": "bank/web"}, "protocol": "TCP", "port": 80}
SERVICE = {
    "kind": "Service",
    "metadata": {"name": "store", "namespace": "bank"},
    "spec": {
        "clusterIP": "10.96.0.1",
        "externalIPs": ["192.0.2.1"],
        "ports": [{"name": "web", "port": 80, "targetPort": "http"}],
        "selector": {"app": "db"},
    },
}
SLICE = {
    "kind": "EndpointSlice",
    "metadata": {"name": "store-x", "namespace": "bank", "labels": {"kubernetes.io/service-name": "store"}},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.0.1.2"], "conditions": {"ready": False}}, {"addresses": ["10.0.0.3"]}],
    "ports": [{"name": "web", "port": 81}],
}


@pytest.mark.parametrize(
    ("pieces", "flow", "behind"),
    [
        ([], {"to": {"ip": "10.96.0.1"}}, [({"pod": "bank/db"}, 8080)]),
        ([], {"to": {"ip": "192.0.2.1"}}, [({"pod": "bank/db"}, 8080)]),
        ([], {"to": {"ip": "192.0.2.1"}, "port": 81}, [({"ip": "192.0.2.1"}, 81)]),
        ([], {"to": {"ip": "192.0.2.2"}}, [({"ip": "192.0.2.2"}, 80)]),
        ([SLICE], {"to": {"ip": "10.96.0.1"}}, [({"ip": "10.0.0.3"}, 81)]),
        ([{**SLICE, "ports": [{"name": "other", "port": 81}]}], {"to": {"ip": "10.96.0.1"}}, []),
        ([{**SLICE, "endpoints": []}], {"to": {"ip": "192.0.2.1"}}, []),
        ([], {"to": {"ip": "10.96.0.1"}, "port": 81}, []),
        ([], {"to": {"ip": "10.96.0.1"}, "protocol": "UDP"}, []),
    ],
)
def test_services_line_by_line(pieces: list[Object], flow: Object, behind: list[Any]) -> None:
    """What leads nowhere is an error to both sides."""
    objects = [*PODS, SERVICE, *pieces]
    flow = {**FLOW, **flow}
    assert [(each["to"], each["port"]) for each in translated(Cluster(objects), flow)] == behind
    if behind:
        assert verdict(Cluster(objects), [], flow).verdict == product(objects, [flow])[0]["verdict"] == "allowed"
        return
    with pytest.raises(LookupError):
        verdict(Cluster(objects), [], flow)
    with pytest.raises(PolicyInvalid, match=r"to: service bank/store (leads nowhere|has no port)"):
        product(objects, [flow])


def test_flows_to_services_are_of_every_kind() -> None:
    """Whatever the seeds: several backends that are judged differently, by own addresses and others, on other ports."""
    met: Counter[str] = Counter()
    for seed in range(40):
        made = state(seed)
        world = Cluster(made.objects)
        for flow in made.flows:
            several = translated(world, flow)
            if several == [flow]:
                continue
            met["own address" if flow["to"]["ip"].startswith(("10.96.", "fd00:96:")) else "outer address"] += 1
            met["another port"] += any(each["port"] != flow["port"] for each in several)
            met["by name of pods"] += any("pod" in each["to"] for each in several)
            met["outside"] += any(each["to"].get("ip") in OUTSIDE for each in several)
            met["judged differently"] += (
                len({after_translation(world, made.policies, each).verdict for each in several}) > 1
            )
    assert all(met[kind] >= 20 for kind in met), met
    assert len(met) == 6
