"""Who manages whom: adopt objects that match a selector, release those that no longer do. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mycel.cluster.controllers.objects import (
    Obj,
    controller_ref,
    evolve,
    is_deleting,
    labels,
    owner_refs,
    uid,
)
from mycel.cluster.controllers.selectors import matches_labels
from mycel.cluster.controllers.writes import Write, owner_reference, update
from mycel.k8s.resources import Resource


class Claim(NamedTuple):
    """What an owner manages after this pass, and the writes that make it so."""

    owned: tuple[Obj, ...]
    writes: tuple[Write, ...]


def claim(
    owner_kind: Resource, owner: Obj, *, kind: Resource, candidates: Iterable[Obj], selector: Obj | None
) -> Claim:
    """Sort `candidates` (same namespace) into owned, adopted and released.

    An owner on its way out adopts nothing; an object on its way out is not adopted.
    """
    owned: list[Obj] = []
    writes: list[Write] = []
    for obj in candidates:
        ref = controller_ref(obj)
        fits = matches_labels(selector, labels(obj))
        if ref is not None:
            if ref.get("uid") != uid(owner):
                continue
            if fits:
                owned.append(obj)
            elif not is_deleting(owner):
                kept = [one for one in owner_refs(obj) if one.get("uid") != uid(owner)]
                freed = evolve(obj, "metadata", "ownerReferences", value=kept or None)
                writes.extend(update(kind, obj, freed, locked=True))
        elif fits and not is_deleting(owner) and not is_deleting(obj):
            refs = [*owner_refs(obj), owner_reference(owner_kind, owner)]
            adopted = evolve(obj, "metadata", "ownerReferences", value=refs)
            writes.extend(update(kind, obj, adopted, locked=True))
            owned.append(obj)
    return Claim(tuple(owned), tuple(writes))
