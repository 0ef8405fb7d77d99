"""A request on a new connection, and a DNS query, every 10 ms until stdin ends: run inside a pod, stdlib only.

    python3 -c "$(cat gap_client.py)" HOST:PORT DNS_SERVER

"ready" at the begin; at the end one JSON line: {"http": [[asked at, answered at or null], …], "dns": [the same]}, in
seconds of the machine's monotonic clock. Only 200 and answers without an error count.
"""

import asyncio
import json
import os
import socket
import struct
import sys
import time

EVERY_S = 0.01
PATIENCE_S = 5.0
REQUEST = b"GET / HTTP/1.1\r\nHost: gap\r\nConnection: close\r\n\r\n"


async def request(target, seen):
    entry = [time.monotonic(), None]
    seen.append(entry)
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(*target)
            writer.write(REQUEST)
            answer = await reader.read()
            writer.close()
        if answer.startswith(b"HTTP/1.1 200"):
            entry[1] = time.monotonic()
    except (OSError, TimeoutError):
        pass


def names(server, asked):
    """A socket whose answers are noted; returns what asks the next question."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.connect((server, 53))
    seen = []

    def hear():
        try:
            while True:
                wire = made.recv(4096)
                entry = asked.pop(wire[:2], None)
                if entry is not None and wire[3] & 15 == 0:
                    entry[1] = time.monotonic()
        except OSError:
            pass

    def ask():
        number = struct.pack("!H", len(seen) % 65536)
        entry = [time.monotonic(), None]
        seen.append(entry)
        asked[number] = entry
        name = b"".join(bytes([len(each)]) + each for each in (b"a%d" % (len(seen) % 10), b"outside", b"test"))
        try:
            made.send(number + b"\1\0\0\1\0\0\0\0\0\0" + name + b"\0\0\1\0\1")
        except OSError:
            pass

    asyncio.get_running_loop().add_reader(made, hear)
    return seen, ask


async def main(target, server):
    host, _, port = target.rpartition(":")
    over, loop, tasks, requests = asyncio.Event(), asyncio.get_running_loop(), set(), []
    loop.add_reader(0, lambda: os.read(0, 1) or (loop.remove_reader(0), over.set()))
    queries, ask = names(server, {})
    print("ready", flush=True)
    while not over.is_set():
        task = asyncio.create_task(request((host, int(port)), requests))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        ask()
        await asyncio.sleep(EVERY_S)
    await asyncio.sleep(PATIENCE_S)
    print(json.dumps({"http": requests, "dns": queries}), flush=True)


asyncio.run(main(*sys.argv[1:]))
