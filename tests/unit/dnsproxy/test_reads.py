"""A loop whose selector calls readers of datagrams itself."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from mycel.dnsproxy.reads import Reads


def test_datagrams_timers_and_everything_else_in_one_loop() -> None:
    """What a reader makes for the loop is done at once; a reader that fails is told, and is called again."""
    reads = Reads()
    told: list[dict[str, Any]] = []
    came: list[bytes] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: told.append(context))
        mine, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
        made: asyncio.Queue[bytes] = asyncio.Queue()

        def read() -> None:
            found = mine.recv(100)
            came.append(found)
            if found == b"bad":
                raise RuntimeError(found)
            made.put_nowait(found)

        async def asks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            theirs.send(await reader.readline())
            writer.close()

        reads.add(mine, read)
        server = await asyncio.start_server(asks, "127.0.0.1", 0)
        with mine, theirs:
            theirs.send(b"bad")
            theirs.send(b"good")
            assert await made.get() == b"good"
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"by TCP\n")
            assert await made.get() == b"by TCP\n"
            writer.close()
            reads.remove(mine)
            theirs.send(b"nobody reads it")
            await asyncio.sleep(0.02)
        server.close()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(reads)) as runner:
        runner.run(asyncio.wait_for(work(), 10))
    assert came == [b"bad", b"good", b"by TCP\n"]
    assert [str(each["exception"]) for each in told] == ["b'bad'"]
