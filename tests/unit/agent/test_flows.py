"""Losses of events: by CPU, each once, also when nothing happens afterwards."""

from __future__ import annotations

import asyncio

import pytest

from mycel.agent import flows


def test_losses_are_told_by_cpu_and_after_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is new at each look; the last batch is followed by one more look."""
    monkeypatch.setattr(flows, "_LOOK_AGAIN_S", 0.0)
    counters, told = [5, 7], list[tuple[int, int | None]]()

    def tell(count: int, *, cpu: int | None = None) -> None:
        told.append((count, cpu))

    async def batches() -> None:
        losses = flows.Losses(lambda: counters, tell)
        losses.look_now_and_later()
        assert told == []  # from before this agent
        counters[1] += 2
        losses.look_now_and_later()
        counters[0] += 1
        for _ in range(3):
            await asyncio.sleep(0)
        losses.close()

    asyncio.run(batches())
    assert told == [(2, 1), (1, 0)]
