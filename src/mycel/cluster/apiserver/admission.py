"""What a write needs to know of other objects, and does to them: namespaces, accounts, addresses, CRDs."""

from __future__ import annotations

import copy
import datetime
import secrets
import uuid
from typing import Any

from mycel.cluster.apiserver import crds, errors
from mycel.cluster.apiserver.allocate import Allocator
from mycel.cluster.apiserver.registry import Kind, Registry, resource_id
from mycel.cluster.store import ResourceId, Store

Object = dict[str, Any]
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_PRIORITIES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
_CRDS = ResourceId("customresourcedefinitions.apiextensions.k8s.io")


class Admission:
    """Cross-object rules; every method runs within one step of the event loop."""

    def __init__(self, store: Store, registry: Registry, allocator: Allocator, *, ca_pem: str) -> None:
        self._store = store
        self._registry = registry
        self._allocator = allocator
        self._ca_pem = ca_pem

    def load(self) -> None:
        """Take up what the store holds: CRDs are served, addresses are taken."""
        for record in self._store.list(_CRDS):
            self._registry.set_custom(record.name, crds.kinds_of(record.obj))
        self._allocator.load(record.obj for record in self._store.values(ResourceId("services")))

    # --- before ---

    def before_create(self, kind: Kind, obj: Object) -> None:
        """Refuse what has no place; fill in what depends on other objects. ApiFault 403 or 404."""
        meta = obj["metadata"]
        if kind.namespaced:
            self._check_namespace(kind, meta)
        match kind.resource:
            case "pods":
                self._prepare_pod(obj)
            case "namespaces":
                obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
                obj["status"] = {"phase": "Active"}
                meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]
            case "persistentvolumeclaims":
                obj["status"] = {"phase": "Pending"}
            case _:
                pass

    def before_update(self, kind: Kind, new: Object, old: Object) -> None:
        """Keep what updates must not lose."""
        if kind.resource == "namespaces":
            new.setdefault("metadata", {}).setdefault("labels", {})["kubernetes.io/metadata.name"] = new["metadata"][
                "name"
            ]
            if "finalizers" not in (new.get("spec") or {}) and (old.get("spec") or {}).get("finalizers"):
                new["spec"] = {**(new.get("spec") or {}), "finalizers": old["spec"]["finalizers"]}
        elif kind.resource == "services":
            _keep_cluster_ip(new, old)
        elif kind.resource == "pods":
            # What the server filled in when the pod was made stays, though a client applies without it.
            for name in ("nodeName", "serviceAccountName", "serviceAccount", "priority", "preemptionPolicy"):
                value = old["spec"].get(name)
                if value is not None:
                    new["spec"].setdefault(name, value)

    def _check_namespace(self, kind: Kind, meta: Object) -> None:
        record = self._store.head(ResourceId("namespaces"), "", meta["namespace"])
        if record is None:
            raise errors.not_found("namespaces", "", meta["namespace"])
        if record.obj["metadata"].get("deletionTimestamp"):
            detail = f"unable to create new content in namespace {meta['namespace']} because it is being terminated"
            fault = errors.forbidden(kind.plural, kind.group, meta.get("name", ""), detail)
            fault.details = {
                **(fault.details or {}),
                "causes": [{"reason": "NamespaceTerminating", "message": detail, "field": "metadata.namespace"}],
            }
            raise fault

    def _prepare_pod(self, pod: Object) -> None:
        spec = pod.get("spec") or {}
        if "containers" not in spec:
            return  # validation says so with the field's path
        pod["status"] = {"phase": "Pending", "qosClass": _qos_class(spec)}
        meta = pod["metadata"]
        account_name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = account_name
        account = self._store.head(ResourceId("serviceaccounts"), meta["namespace"], account_name)
        if account is None and account_name != "default":
            detail = (
                f"error looking up service account {meta['namespace']}/{account_name}: "
                f'serviceaccount "{account_name}" not found'
            )
            raise errors.forbidden("pods", "", meta["name"], detail)
        mounts = account.obj.get("automountServiceAccountToken") if account else None
        wished = spec.get("automountServiceAccountToken")
        if wished if wished is not None else mounts is not False:
            _mount_token(spec)
        name = spec.get("priorityClassName")
        if name:
            record = self._store.head(ResourceId("priorityclasses.scheduling.k8s.io"), "", name)
            value = record.obj.get("value", 0) if record else _PRIORITIES.get(name)
            if value is None:
                raise errors.forbidden("pods", "", meta["name"], f"no PriorityClass with name {name} was found")
            spec["priority"] = value
        else:
            spec.setdefault("priority", 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")

    # --- giving ---

    def allocate(self, kind: Kind, new: Object, old: Object | None, *, dry_run: bool) -> None:
        """Addresses and ports of Services, conditions of CRDs; ApiFault 422 when there is none to give."""
        if kind.resource == "services":
            problems = self._allocator.fill(new, old)
            if problems:
                raise errors.invalid_object(kind.kind, kind.group, new["metadata"]["name"], problems)
        elif kind.resource == _CRDS and not dry_run:
            crds.establish(new, self._registry, now=_now())

    # --- after ---

    def written(self, kind: Kind, new: Object, old: Object | None) -> None:
        """Follow an accepted write."""
        if kind.resource == "services":
            if old is not None:
                self._allocator.release(old)
            self._allocator.take(new)
        elif kind.resource == _CRDS:
            self._registry.set_custom(new["metadata"]["name"], crds.kinds_of(new))
            if new["metadata"].get("deletionTimestamp"):
                self._clean_up(new)
        elif kind.resource == "namespaces" and old is None:
            self._furnish(new["metadata"]["name"])

    def removed(self, kind: Kind, obj: Object) -> None:
        """Follow an accepted removal."""
        if kind.resource == "services":
            self._allocator.release(obj)
        elif kind.resource == _CRDS:
            self._registry.set_custom(obj["metadata"]["name"], ())
        elif kind.custom is not None:
            self._finish_crd(kind)

    def may_go(self, kind: Kind, obj: Object) -> bool:
        """Whether a deleted object without finalizers may leave: a CRD waits for its objects."""
        if kind.resource != _CRDS:
            return True
        self._delete_instances(obj)
        return not self._instances(obj)

    # --- CRDs ---

    def _instances(self, crd: Object) -> list[Object]:
        resource = resource_id(crd["spec"]["names"]["plural"], crd["spec"]["group"])
        found: list[Object] = []
        for record in self._store.list(resource):
            newest = self._store.head(resource, record.namespace, record.name)
            if newest is not None:
                found.append(newest.obj)
        return found

    def _delete_instances(self, crd: Object) -> None:
        resource = resource_id(crd["spec"]["names"]["plural"], crd["spec"]["group"])
        for obj in self._instances(crd):
            new = copy.deepcopy(obj)
            if not new["metadata"].get("finalizers"):
                self._store.delete(resource, new)
            elif not new["metadata"].get("deletionTimestamp"):
                new["metadata"]["deletionTimestamp"] = _now()
                new["metadata"]["deletionGracePeriodSeconds"] = 0
                self._store.put(resource, new)

    def _clean_up(self, crd: Object) -> None:
        self._delete_instances(crd)

    def _finish_crd(self, kind: Kind) -> None:
        record = self._store.head(_CRDS, "", f"{kind.plural}.{kind.group}")
        if record is None or not record.obj["metadata"].get("deletionTimestamp"):
            return
        if not record.obj["metadata"].get("finalizers") and not self._instances(record.obj):
            self._store.delete(_CRDS, copy.deepcopy(record.obj))
            self._registry.set_custom(record.name, ())

    # --- namespaces ---

    def _furnish(self, namespace: str) -> None:
        """What every namespace has at once, so that a pod in the same manifest finds its account."""
        moment = _now()

        def meta(name: str) -> Object:
            return {
                "name": name,
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": moment,
            }

        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("default")}
        if self._store.head(ResourceId("serviceaccounts"), namespace, "default") is None:
            self._store.put(ResourceId("serviceaccounts"), account)
        roots = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta("kube-root-ca.crt"),
            "data": {"ca.crt": self._ca_pem},
        }
        if self._store.head(ResourceId("configmaps"), namespace, "kube-root-ca.crt") is None:
            self._store.put(ResourceId("configmaps"), roots)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _keep_cluster_ip(new: Object, old: Object) -> None:
    spec, before = new.get("spec"), old.get("spec") or {}
    if not isinstance(spec, dict) or spec.get("type") == "ExternalName":
        return
    for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if not spec.get(name) and before.get(name):
            spec[name] = before[name]


def _qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, by the containers' requests and limits."""
    requests: set[bool] = set()
    guaranteed = True
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        resources = container.get("resources") or {}
        wants, limits = resources.get("requests") or {}, resources.get("limits") or {}
        requests.add(any(name in wants or name in limits for name in ("cpu", "memory")))
        for name in ("cpu", "memory"):
            if name not in limits or wants.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if requests <= {False}:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _mount_token(spec: Object) -> None:
    """The projected volume with token, CA and namespace, mounted where client libraries look."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    lacking = [
        container
        for container in containers
        if all(mount.get("mountPath") != _TOKEN_PATH for mount in container.get("volumeMounts") or ())
    ]
    if not lacking:
        return
    volumes = spec.setdefault("volumes", [])
    name = next((v["name"] for v in volumes if str(v.get("name", "")).startswith("kube-api-access-")), None)
    if name is None:
        name = "kube-api-access-" + "".join(secrets.choice(_SUFFIX) for _ in range(5))
        token = {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
        roots = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
        field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
        where = {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}}
        volumes.append({"name": name, "projected": {"defaultMode": 420, "sources": [token, roots, where]}})
    for container in lacking:
        container.setdefault("volumeMounts", []).append({"name": name, "readOnly": True, "mountPath": _TOKEN_PATH})
