"""The facts of a pod that is being wired: from the informer, or asked for when it lags behind the runtime."""

from __future__ import annotations

import asyncio

from mycel.agent.watches import Watches
from mycel.identity.labels import identity_labels
from mycel.k8s import parse
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import NotFound
from mycel.k8s.resources import PODS
from mycel.model.workload import PodRef, Workload

_LOOK_S = 0.02
_LOOKS = 10


class PodFacts:
    """Implements `endpoints.PodLookup`."""

    def __init__(self, client: ApiClient, watches: Watches, *, cluster: str) -> None:
        self._client = client
        self._watches = watches
        self._cluster = cluster

    async def pod(self, ref: PodRef, uid: str) -> Workload:
        """The pod as the API server has it; `uid` (empty: any) tells a new pod from an old one of its name."""
        for _ in range(_LOOKS):
            pod = self._watches.pods.get(ref.name, ref.namespace)
            if pod is not None and uid in ("", pod.uid):
                return pod
            await asyncio.sleep(_LOOK_S)
        path = PODS.path(ref.namespace, ref.name)
        pod = parse.PODS_CODEC.decode(await self._client.request("GET", path))
        if uid not in ("", pod.uid):
            raise NotFound(404, "NotFound", f"pod {ref} with uid {uid} is gone, another has its name")
        return pod

    def identity_labels(self, pod: Workload) -> tuple[str, ...] | None:
        """Labels of the pod's identity; None while its namespace is not known."""
        namespace = self._watches.namespaces.get(pod.ref.namespace)
        if namespace is None:
            return None
        return identity_labels(
            pod.labels,
            pod.ref.namespace,
            namespace_labels=namespace.labels,
            service_account=pod.service_account,
            named_ports=pod.named_ports,
            cluster=self._cluster,
        )
