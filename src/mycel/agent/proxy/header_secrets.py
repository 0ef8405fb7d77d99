"""The Secrets whose values HTTP rules compare headers with: what Envoy gets of them, and what is wrong with them.

Every node reads those of the listeners it has. The node that judges policies reads those of every policy, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from mycel.agent.secrets import Secrets
from mycel.envoy.resources import Resource
from mycel.envoy.secrets import header_value
from mycel.policy.http import SecretRef

_PATIENCE_S = 10.0


class HeaderSecrets:
    """See the module. `changed` is called when a Secret is another than before, or is known for the first time."""

    def __init__(self, secrets: Secrets, *, judged: Callable[[], Iterable[SecretRef]]) -> None:
        """`judged`: the Secrets this node is to know for its judgements."""
        self._secrets = secrets
        self._judged = judged
        self._news = asyncio.Event()
        self.changed: Callable[[], None] = lambda: None
        secrets.changed = self._tell

    async def usable(self, refs: Iterable[SecretRef]) -> dict[SecretRef, Resource]:
        """Those of these Secrets that can be used. Waits for those nobody has asked for yet, but not for ever: what is
        not known is not used.
        """
        own = frozenset(each for each in refs if not each.foreign)
        places = {each[:2] for each in own}
        self._secrets.want(places | {each[:2] for each in self._judged() if not each.foreign})
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while places - self._secrets.found.keys():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        made = ((each, header_value(each, self._secrets.found.get(each[:2]))) for each in own)
        return {each: resource for each, resource in made if isinstance(resource, Resource)}

    def problems(self, refs: Iterable[SecretRef]) -> list[str] | None:
        """What is wrong with these Secrets; None when this node does not know all of them."""
        named = sorted(refs)
        if any(not each.foreign and each[:2] not in self._secrets.found for each in named):
            return None
        made = (header_value(each, self._secrets.found.get(each[:2])) for each in named)
        return [each for each in made if not isinstance(each, Resource)]

    def _tell(self) -> None:
        self._news.set()
        self.changed()
