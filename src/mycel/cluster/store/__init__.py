"""The cluster's memory: every object and every change, durable in SQLite, readable from memory.

One thread writes; reads and watches never touch the disk. Nothing here knows what a Pod is, speaks HTTP or
judges a request: callers hand over finished objects.
"""

from mycel.cluster.store.errors import RevisionTooOld, StoreCorrupt, StoreError, StoreFailed
from mycel.cluster.store.record import Change, ChangeType, Record, ResourceId, Revision
from mycel.cluster.store.store import Store

__all__ = [
    "Change",
    "ChangeType",
    "Record",
    "ResourceId",
    "Revision",
    "RevisionTooOld",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreFailed",
]
