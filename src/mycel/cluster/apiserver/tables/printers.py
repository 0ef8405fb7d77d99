"""The printers by kind."""

from __future__ import annotations

from mycel.cluster.apiserver.tables.column import Printer
from mycel.cluster.apiserver.tables.core import CORE
from mycel.cluster.apiserver.tables.others import OTHERS
from mycel.cluster.apiserver.tables.pod import POD
from mycel.cluster.apiserver.tables.workloads import WORKLOADS

PRINTERS: dict[str, Printer] = {"pods": POD, **CORE, **WORKLOADS, **OTHERS}
