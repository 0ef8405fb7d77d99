"""Which namespaces an object may name things in. Every controller asks here, so that there is one answer."""

from __future__ import annotations


def foreign(home: str, namespace: str) -> bool:
    """Whether an object of namespace `home` (empty: clusterwide) may not name what is in `namespace`.

    Objects of a namespace name what is in it, clusterwide ones anything: who may write into one namespace must
    not reach others through the mesh. There is no object yet by which a namespace could open itself.
    """
    return bool(home) and namespace != home
