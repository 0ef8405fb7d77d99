"""Rings of the node's events, made once: one per possible CPU in the slots of mycel_events."""

from __future__ import annotations

import os
import struct

from mycel.datapath import syscall
from mycel.datapath.syscall import MapType


def ensure_rings(events_fd: int, ring_bytes: int) -> None:
    """Put a ring into every slot of mycel_events that has none yet. Rings that exist keep their size."""
    for cpu in range(syscall.map_info(events_fd).max_entries):
        key = struct.pack("<I", cpu)
        if syscall.map_lookup(events_fd, key, 4) is not None:
            continue
        ring_fd = syscall.map_create(
            MapType.RINGBUF, key_size=0, value_size=0, max_entries=ring_bytes, name="mycel_ring"
        )
        try:
            syscall.map_update(events_fd, key, struct.pack("<I", ring_fd))
        finally:
            os.close(ring_fd)
