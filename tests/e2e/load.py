"""Traffic that notices: run inside a pod with python3, standard library only.

    python3 -c "$(cat load.py)" HOLD NEW_PER_S HOST:PORT …

Until stdin ends it keeps HOLD connections open, spread over the targets, and sends a request on each of them every half
second; meanwhile opens NEW_PER_S short connections a second. A reset, a refusal, or no answer in LATE_S is a failure.
"ready" is printed once every held connection has answered; one JSON line at the end says what was seen:
{"held": …, "answers": …, "new": …, "failures": [first twenty, as text], "failed": …, "slowest_s": …}.
"""

import asyncio
import json
import os
import sys
import time

LATE_S = 30.0
REQUEST = b"GET / HTTP/1.1\r\nHost: load\r\n\r\n"


class Seen:
    def __init__(self):
        self.answers = self.new = self.failed = 0
        self.slowest_s = 0.0
        self.failures = []

    def fail(self, what):
        self.failed += 1
        if len(self.failures) < 20:
            self.failures.append(what)


async def ask(reader, writer):
    """One request and its whole answer."""
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    await reader.readexactly(length)


async def hold(number, target, seen, ready, over):
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(*target), LATE_S)
        first = True
        while first or not over.is_set():
            started = time.monotonic()
            await asyncio.wait_for(ask(reader, writer), LATE_S)
            seen.slowest_s = max(seen.slowest_s, time.monotonic() - started)
            seen.answers += 1
            if first:
                first = False
                ready.release()
            await asyncio.sleep(0.5)
        writer.close()
    except Exception as exc:
        seen.fail(f"connection {number} to {target[0]}: {type(exc).__name__} {exc}")
        ready.release()


async def once(target, seen):
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(*target), LATE_S)
        await asyncio.wait_for(ask(reader, writer), LATE_S)
        writer.close()
        seen.new += 1
    except Exception as exc:
        seen.fail(f"new connection to {target[0]}: {type(exc).__name__} {exc}")


async def main(held, new_per_s, *targets):
    targets = [(host, int(port)) for host, _, port in (text.rpartition(":") for text in targets)]
    seen, ready = Seen(), asyncio.Semaphore(0)
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(0, lambda: os.read(0, 1) or (loop.remove_reader(0), over.set()))
    tasks = [asyncio.create_task(hold(i, targets[i % len(targets)], seen, ready, over)) for i in range(held)]
    for _ in range(held):
        await ready.acquire()
    print("ready", flush=True)
    turn = 0
    while not over.is_set():
        tasks.append(asyncio.create_task(once(targets[turn % len(targets)], seen)))
        turn += 1
        await asyncio.sleep(1 / new_per_s)
    await asyncio.gather(*tasks)
    print(
        json.dumps(
            {
                "held": held,
                "answers": seen.answers,
                "new": seen.new,
                "failed": seen.failed,
                "failures": seen.failures,
                "slowest_s": round(seen.slowest_s, 3),
            }
        ),
        flush=True,
    )


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
