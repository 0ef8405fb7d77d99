"""Requests and DNS queries at a steady rate until stdin ends: run inside a pod, standard library only.

    python3 -c "$(cat layer7_load.py)" PER_S HOST:PORT DNS_SERVER DNS_PER_S

PER_S requests go over 32 connections that are kept, and over one that is new every 50 ms; every fifth asks for `/foo`
(denied), the rest for `/` (allowed). A connection that ends is made anew. Queries are for `a0.outside.test` to
`a9.outside.test`, each is sent once. "ready" is printed after the first answers; one JSON line at the end:

    {"allowed": {outcome: n}, "denied": {outcome: n}, "last": [the last ten outcomes of `/`], "silence_s": …,
     "names": {outcome: n}, "names_last": how many of the last ten queries were answered, "names_silence_s": …,
     "requests": n, "cpu_s": …}

where an outcome is a status code, an error code of DNS, "cut" (the connection ended meanwhile), "late" (no answer in
LATE_S) or an error's name. A silence is the longest time without a good answer. The last ten are asked when stdin has
ended, one after the other.
"""

import asyncio
import json
import os
import socket
import struct
import sys
import time
from collections import Counter

LATE_S = 30.0
LOST_S = 10.0  # a query has no answer any more
KEPT = 32
TICK_S = 0.01
WIRE = {path: f"GET {path} HTTP/1.1\r\nHost: load\r\n\r\n".encode() for path in ("/", "/foo")}


class Seen:
    def __init__(self):
        self.outcomes = {"/": Counter(), "/foo": Counter()}
        self.last = []
        self.silence_s = 0.0
        self.answered = time.monotonic()

    def say(self, path, outcome):
        self.outcomes[path][outcome] += 1
        if path == "/":
            self.last = [*self.last[-9:], outcome]
        if outcome == "200":
            now = time.monotonic()
            self.silence_s, self.answered = max(self.silence_s, now - self.answered), now


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, seen, idle):
        self.seen, self.idle = seen, idle
        self.path, self.rest, self.transport, self.timer = None, b"", None, None

    def connection_made(self, transport):
        self.transport = transport
        self.idle.append(self)

    def ask(self, path):
        self.path, self.rest = path, b""
        self.timer = asyncio.get_running_loop().call_later(LATE_S, self.late)
        self.transport.write(WIRE[path])

    def data_received(self, data):
        self.rest += data
        head, end, body = self.rest.partition(b"\r\n\r\n")
        if not end or self.path is None:
            return
        at = head.lower().find(b"content-length:")
        if len(body) >= int(head[at + 15 :].split(b"\r", 1)[0]):
            self.done(head[9:12].decode())
            self.idle.append(self)

    def done(self, outcome):
        self.timer.cancel()
        self.seen.say(self.path, outcome)
        self.path = None

    def late(self):
        self.done("late")
        self.transport.abort()

    def connection_lost(self, _):
        if self.path is not None:
            self.done("cut")
        if self in self.idle:
            self.idle.remove(self)


async def keep(target, seen, idle):
    """One connection, made anew whenever it has ended."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            transport, _ = await loop.create_connection(lambda: Connection(seen, idle), *target)
            while not transport.is_closing():
                await asyncio.sleep(0.05)
        except OSError:
            await asyncio.sleep(0.05)


async def once(target, seen, path):
    """A connection for one request."""
    loop, found = asyncio.get_running_loop(), []
    try:
        async with asyncio.timeout(2 * LATE_S):
            transport, connection = await loop.create_connection(lambda: Connection(seen, found), *target)
    except (OSError, TimeoutError) as exc:
        seen.say(path, type(exc).__name__)
        return
    if transport.is_closing():
        seen.say(path, "cut")
        return
    connection.ask(path)
    while connection.path is not None:
        await asyncio.sleep(0.02)
    transport.abort()


async def requests(per_s, over, target, seen, ready):
    idle, tasks, sent, begun, number = [], [], 0, time.monotonic(), 0
    kept = [asyncio.create_task(keep(target, seen, idle)) for _ in range(KEPT)]
    while not over.is_set():
        now = time.monotonic()
        while idle and sent < (now - begun) * per_s:
            sent += 1
            idle.pop(0).ask("/foo" if sent % 5 == 0 else "/")
        if not idle:
            sent = max(sent, int((now - begun) * per_s))  # what nobody could send is not made up for
        number += 1
        if number % 5 == 0:
            tasks.append(asyncio.create_task(once(target, seen, "/foo" if number % 25 == 0 else "/")))
        if seen.outcomes["/"]["200"]:
            ready.set()
        await asyncio.sleep(TICK_S)
    await asyncio.gather(*tasks)
    await asyncio.sleep(0.5)
    for _ in range(10):
        await once(target, seen, "/")
    for task in kept:
        task.cancel()


async def names(per_s, over, server, found, ready):
    """Returns how many of the last ten were answered, and the longest time without an answer."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.connect((server, 53))
    asked, answered, silence_s, number = {}, time.monotonic(), 0.0, 0

    def hear():
        nonlocal answered, silence_s
        try:
            while True:
                wire = made.recv(4096)
                if asked.pop(wire[:2], None) is not None:
                    found["NOERROR" if wire[3] & 15 == 0 else str(wire[3] & 15)] += 1
                    now = time.monotonic()
                    silence_s, answered = max(silence_s, now - answered), now
                    ready.set()
        except BlockingIOError:
            pass
        except OSError as exc:
            found[type(exc).__name__] += 1

    asyncio.get_running_loop().add_reader(made, hear)
    rest = 10
    while rest:
        rest -= over.is_set()
        number += 1
        mark = struct.pack("!H", number % 65536)
        asked[mark] = time.monotonic()
        name = f"a{number % 10}.outside.test".encode()
        labels = b"".join(bytes([len(each)]) + each for each in name.split(b"."))
        made.send(mark + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1")
        await asyncio.sleep(1 / per_s)
    until = time.monotonic() + LOST_S
    while asked and time.monotonic() < until:
        await asyncio.sleep(0.1)
    found["late"] += len(asked)
    lately = {struct.pack("!H", each % 65536) for each in range(number - 9, number + 1)}
    return 10 - len(lately & asked.keys()), silence_s


async def main(per_s, target, server, names_per_s):
    host, _, port = target.rpartition(":")
    seen, found, ready = Seen(), Counter(), [asyncio.Event(), asyncio.Event()]
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(0, lambda: os.read(0, 1) or (loop.remove_reader(0), over.set()))
    load = asyncio.create_task(requests(per_s, over, (host, int(port)), seen, ready[0]))
    asks = asyncio.create_task(names(names_per_s, over, server, found, ready[1]))
    for each in ready:
        await each.wait()
    seen.silence_s = 0.0
    print("ready", flush=True)
    await load
    answered, silence_s = await asks
    told = {
        "allowed": seen.outcomes["/"],
        "denied": seen.outcomes["/foo"],
        "last": seen.last,
        "silence_s": round(seen.silence_s, 3),
        "names": {outcome: count for outcome, count in found.items() if count},
        "names_last": answered,
        "names_silence_s": round(silence_s, 3),
        "requests": sum(sum(each.values()) for each in seen.outcomes.values()),
        "cpu_s": round(sum(os.times()[:2]), 2),
    }
    print(json.dumps(told), flush=True)


asyncio.run(main(float(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])))
