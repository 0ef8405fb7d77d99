"""Whose the objects are that Ingresses become."""

from __future__ import annotations

from mycel.operator.ingress.model import LABEL
from mycel.operator.owned import Object


def owner(item: Object) -> str:
    """The uid of the Ingress an object belongs to; empty: to none."""
    for each in item["metadata"].get("ownerReferences") or ():
        if each.get("kind") == "Ingress" and each.get("controller"):
            return str(each.get("uid", ""))
    return ""


def made_here(item: Object) -> bool:
    """Whether an object is one that we make of Ingresses: those of other controllers may belong to Ingresses too."""
    return bool(owner(item)) and (item["metadata"].get("labels") or {}).get(LABEL) == "true"


def others(live: Object, wanted: Object) -> bool:
    """Whether a live object belongs to another Ingress than it should, or to none."""
    return owner(live) != owner(wanted)
