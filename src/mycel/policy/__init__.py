"""Policy: from rules people write to rows the kernel enforces, and to explanations. Pure.

manifests → `parse` → policies in one form → `engine` (`subjects`: who is selected, by whom; `members`: whom rules are
about; `networks`, `names`, `aliases`: identities of addresses) → `sets` and `rows` (what the kernel looks up) → `judge`
(what it answers) → `offline`, `explain`, `lint` (the same for people).
`evaluate_manifests(objects, flows)` is all of it at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def evaluate_manifests(
    objects: Iterable[Mapping[str, Any]], flows: Iterable[Mapping[str, Any]] | None = None, *, cluster: str = ""
) -> list[dict[str, Any]]:
    """See `offline.evaluate_manifests`; imported when it is used, since an agent does not need it."""
    from mycel.policy import offline

    return offline.evaluate_manifests(objects, flows, cluster=cluster)
