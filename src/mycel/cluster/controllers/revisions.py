"""ControllerRevisions: the history of pod templates of DaemonSets and StatefulSets, for `kubectl rollout`.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mycel.cluster.controllers.hashing import template_hash
from mycel.cluster.controllers.objects import Obj, controller_uid, evolve, labels, name, namespace, spec, uid
from mycel.cluster.controllers.writes import Write, create, delete, owner_reference, update
from mycel.k8s.resources import CONTROLLER_REVISIONS, Resource

HASH_LABEL = "controller-revision-hash"


class History(NamedTuple):
    """Today's revision (its hash is the label pods carry) and the writes that keep the history."""

    hash: str
    name: str
    writes: tuple[Write, ...]


def keep_history(
    kind: Resource, owner: Obj, revisions: Iterable[Obj], *, in_use: frozenset[str], limit: int
) -> History:
    """Make sure today's template has the newest revision; drop the oldest unused ones beyond `limit`."""
    template = spec(owner).get("template") or {}
    mine = sorted(
        (one for one in revisions if controller_uid(one) == uid(owner)),
        key=lambda one: one.get("revision", 0),
    )
    newest = mine[-1].get("revision", 0) if mine else 0
    current = next((one for one in reversed(mine) if template_of(one) == template), None)
    if current is None:
        digest = template_hash(template)
        body: Obj = {
            "metadata": {
                "name": f"{name(owner)}-{digest}",
                "namespace": namespace(owner),
                "labels": {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest},
                "ownerReferences": [owner_reference(kind, owner)],
            },
            "data": {"spec": {"template": {**template, "$patch": "replace"}}},
            "revision": newest + 1,
        }
        return History(digest, f"{name(owner)}-{digest}", (create(CONTROLLER_REVISIONS, body),))
    digest = labels(current).get(HASH_LABEL, "")
    writes: list[Write] = []
    if current.get("revision", 0) < newest:  # a rollback: the old template is today's again
        writes.extend(update(CONTROLLER_REVISIONS, current, evolve(current, "revision", value=newest + 1)))
    old = [one for one in mine if one is not current and labels(one).get(HASH_LABEL) not in in_use]
    writes.extend(delete(CONTROLLER_REVISIONS, one) for one in old[: max(len(old) - limit, 0)])
    return History(digest, name(current), tuple(writes))


def template_of(revision: Obj) -> Obj:
    """The pod template a revision records."""
    template = ((revision.get("data") or {}).get("spec") or {}).get("template") or {}
    return {field: value for field, value in template.items() if field != "$patch"}
