"""Two ends of many TCP connections, for tests that break things under traffic. Standard library only.

`talkers.py serve PORT` echoes lines. `talkers.py talk HOST:PORT[,HOST:PORT] COUNT` keeps COUNT connections
talking, opens and closes new ones all the time, until its stdin ends; then it prints JSON: {"kept", "opened", "took_s",
"failed": how many, "failures": [the first and last of them, with the second they came in]}. It says "talking" when
each of the COUNT has come about or failed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys

PAUSE_S, PATIENCE_S = 0.5, 60.0


async def serve(port: int) -> None:
    """Echo lines for ever."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "0.0.0.0", port, backlog=1024)
    print("up", flush=True)
    await server.serve_forever()


async def talk(targets: list[tuple[str, int]], count: int) -> dict[str, object]:
    """Talk until stdin ends."""
    stop = asyncio.Event()
    failures: list[str] = []
    opened = kept = tried = 0
    loop = asyncio.get_running_loop()
    begun = loop.time()
    loop.add_reader(sys.stdin, stop.set)

    def failed(what: str, exc: Exception) -> None:
        failures.append(f"{loop.time() - begun:.2f} s: {what}: {type(exc).__name__} {exc}")

    async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        answer = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        if answer != b"hello\n":
            raise ConnectionError(f"answered {answer!r}")

    async def keep(target: tuple[str, int]) -> None:
        nonlocal kept, tried
        try:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(*target), PATIENCE_S)
            finally:
                tried += 1
                if tried == count:
                    print("talking", flush=True)
            kept += 1
            while not stop.is_set():
                await said(reader, writer)
                await asyncio.sleep(PAUSE_S)
            await said(reader, writer)
            writer.close()
        except (OSError, TimeoutError) as exc:
            failed(f"kept connection to {target}", exc)

    async def renew() -> None:
        nonlocal opened
        for target in itertools.cycle(targets):
            if stop.is_set():
                return
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(*target), PATIENCE_S)
                await said(reader, writer)
                writer.close()
                opened += 1
            except (OSError, TimeoutError) as exc:
                failed(f"new connection to {target}", exc)
            await asyncio.sleep(0.01)

    chosen = itertools.islice(itertools.cycle(targets), count)
    await asyncio.gather(renew(), *(keep(target) for target in chosen))
    told = failures[:10] + failures[10:][-10:]
    took_s = round(loop.time() - begun, 2)
    return {"kept": kept, "opened": opened, "took_s": took_s, "failed": len(failures), "failures": told}


def main() -> None:
    """See the module."""
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    targets = [(host, int(port)) for host, _, port in (each.partition(":") for each in sys.argv[2].split(","))]
    print(json.dumps(asyncio.run(talk(targets, int(sys.argv[3])))))


if __name__ == "__main__":
    main()
