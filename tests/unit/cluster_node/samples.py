"""Small pods for tests."""

from __future__ import annotations

from typing import Any


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A pod `shop/cart` with these containers (one called `main` by default)."""
    return {
        "metadata": {
            "name": "cart",
            "namespace": "shop",
            "uid": "u-1",
            "labels": {"app": "cart"},
            "annotations": {"note": 'a "b"'},
        },
        "spec": {"containers": list(containers) or [{"name": "main", "image": "busybox"}], "nodeName": "n1", **spec},
        "status": {"podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}], "hostIP": "172.18.0.2"},
    }
