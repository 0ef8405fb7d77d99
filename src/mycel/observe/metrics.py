"""Counters over flows as Prometheus text, under the names that Hubble's dashboards use."""

import socket
from typing import TYPE_CHECKING

import numpy as np

from mycel import abi
from mycel.api import flow_pb2
from mycel.flow import text
from mycel.flow.l7 import Sheet
from mycel.flow.l7_rows import L7_EVENT
from mycel.flow.rows import Rows

if TYPE_CHECKING:
    from mycel.observe.store import FlowStore

_PROTOCOLS = {1: "ICMPv4", 2: "IGMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 112: "VRRP", 132: "SCTP"}
_KINDS = {1: "Drop", 4: "Trace", 5: "PolicyVerdict", 7: "TraceSock", L7_EVENT: "L7"}
_DROP = 1
_TRACE = 4


class FlowMetrics:
    """Counts rows by kind, sub-type, verdict and protocol: at most a few hundred numbers."""

    def __init__(self, store: "FlowStore") -> None:
        self._store = store
        self._flows: dict[int, int] = {}

    def count(self, rows: Rows) -> None:
        """Add a batch."""
        event = rows["event"]
        keys = (
            event["kind"].astype(np.uint32) << np.uint32(24)
            | event["sub_type"].astype(np.uint32) << np.uint32(16)
            | event["verdict"].astype(np.uint32) << np.uint32(8)
            | event["protocol"]
        )
        for key, count in zip(*(part.tolist() for part in np.unique(keys, return_counts=True)), strict=True):
            self._flows[key] = self._flows.get(key, 0) + count

    def count_sheet(self, sheet: Sheet) -> None:
        """Add what is not read yet: requests by TCP and their answers."""
        for verdict, count in ((abi.Verdict.FORWARDED, sheet.forwarded), (abi.Verdict.DROPPED, sheet.dropped)):
            if count:
                key = L7_EVENT << 24 | verdict << 8 | socket.IPPROTO_TCP
                self._flows[key] = self._flows.get(key, 0) + count

    def render(self) -> str:
        """The text exposition format, version 0.0.4."""
        processed: dict[str, int] = {}
        dropped: dict[str, int] = {}
        for key, count in self._flows.items():
            kind, sub_type, verdict, protocol = key >> 24, key >> 16 & 255, key >> 8 & 255, key & 255
            layer = _PROTOCOLS.get(protocol, "Unknown flow")
            point = text.TRACE_POINTS.get(sub_type, "") if kind == _TRACE else ""
            name = flow_pb2.Verdict.Name(verdict) if verdict in flow_pb2.Verdict.values() else str(verdict)  # type: ignore[arg-type]
            labels = f'protocol="{layer}",subtype="{point}",type="{_KINDS.get(kind, kind)}",verdict="{name}"'
            processed[labels] = processed.get(labels, 0) + count
            if kind == _DROP:
                reason = f'protocol="{layer}",reason="{text.drop_reason(sub_type)}"'
                dropped[reason] = dropped.get(reason, 0) + count
        statistics = self._store.statistics()
        return "".join(
            (
                _family("hubble_flows_processed_total", "Flows by type and verdict.", processed),
                _family("hubble_drop_total", "Dropped packets that were reported, by reason.", dropped),
                _family("hubble_lost_events_total", "Events the kernel had no room for.", {"": statistics.lost}),
                _family("hubble_flows_held", "Flows in the store.", {"": statistics.held}, kind="gauge"),
            )
        )


def _family(name: str, text_: str, samples: dict[str, int], *, kind: str = "counter") -> str:
    lines = [f"# HELP {name} {text_}", f"# TYPE {name} {kind}"]
    lines += [
        f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in sorted(samples.items())
    ]
    return "\n".join(lines) + "\n"
