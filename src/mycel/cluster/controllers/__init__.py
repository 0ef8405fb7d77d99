"""The controllers and the scheduler of the embedded cluster: ordinary clients of its API.

Each controller is a pure decision (the cached world and one object in, writes out) in its own module; `loop`
is the one loop they all run in, `world` the caches, `apply` the requests. `manager` wires them. Nothing here
touches nodes or the mesh.
"""

from mycel.cluster.controllers.manager import run
from mycel.cluster.controllers.settings import ControllerSettings

__all__ = ["ControllerSettings", "run"]
