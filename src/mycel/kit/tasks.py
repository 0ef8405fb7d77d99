"""Background tasks with names: a task that fails or ends by itself is never silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger(__name__)


async def guard(work: Coroutine[Any, Any, Any], name: str, *, finishes: bool = False) -> None:
    """Await `work`; its failure is logged by name and passed on, its end a warning unless it `finishes`."""
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception:
        _log.exception("task failed: %s", name)
        raise
    if not finishes:
        _log.warning("task ended by itself: %s", name)


def spawn(
    group: asyncio.TaskGroup, work: Coroutine[Any, Any, Any], name: str, *, finishes: bool = False
) -> asyncio.Task[None]:
    """Start `work` in the process's task group under `name`, guarded."""
    return group.create_task(guard(work, name, finishes=finishes), name=name)
