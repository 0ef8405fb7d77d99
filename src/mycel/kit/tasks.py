"""Background tasks with names: a task that fails or ends by itself is never silent."""

from __future__ import annotations

import asyncio
import logging
import signal
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


async def until_signal(work: Coroutine[Any, Any, Any], name: str, *, stopped: str = "") -> int:
    """Run a process's whole work until it ends or SIGTERM or SIGINT cancels it. Returns the exit code: 1 when it
    failed. `stopped` is what the log says of what stays behind.
    """
    task = asyncio.create_task(work, name=name)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        _log.info("%s", "; ".join(filter(None, ("stopped", stopped))))
    except BaseExceptionGroup as group:
        for problem in group.exceptions:
            _log.error("stopped by %s: %s", type(problem).__name__, problem, exc_info=problem)
        return 1
    return 0
