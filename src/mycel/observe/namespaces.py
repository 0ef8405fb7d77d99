"""Namespaces seen in flows lately, for `hubble list namespaces`."""

import time

import numpy as np

from mycel.flow.enrich import Records
from mycel.flow.rows import Rows

_RECENT_S = 3600.0


class RecentNamespaces:
    """Namespace → when it was last an end of a flow."""

    def __init__(self, records: Records, *, cluster_name: str) -> None:
        self.cluster_name = cluster_name
        self._records = records
        self._seen: dict[tuple[str, str], float] = {}

    def note(self, rows: Rows) -> None:
        """Remember the namespaces of a batch."""
        now = time.monotonic()
        numbers = np.unique(np.concatenate([rows["source_record"], rows["destination_record"]]))
        for number in numbers.tolist():
            endpoint = self._records.endpoints[number]
            if endpoint is not None and endpoint.namespace:
                self._seen[endpoint.cluster_name or self.cluster_name, endpoint.namespace] = now

    def recent(self) -> list[tuple[str, str]]:
        """(cluster, namespace) of the last hour, sorted."""
        limit = time.monotonic() - _RECENT_S
        self._seen = {key: seen for key, seen in self._seen.items() if seen >= limit}
        return sorted(self._seen)
