"""exec and attach: a command in a container, or the container's own stdio, joined to a `remote.Channel`."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import socket
import struct
import termios
from collections.abc import Sequence

from mycel.cluster.node import remote, runtime
from mycel.cluster.node.names import ContainerId
from mycel.cluster.node.remote import Channel, Size, Stream

_CHUNK = 32 << 10
_ATTACH_STDOUT, _ATTACH_STDERR = 2, 3  # conmon's first byte of a packet


async def run_exec(container: ContainerId, command: Sequence[str], channel: Channel, *, stdin: bool, tty: bool) -> None:
    """Run the command until it ends or the client goes; the outcome goes out as the final status."""
    runner = _with_terminal if tty else _with_pipes
    code = await runner(container, command, channel, stdin)
    if code is None:
        return
    if code == 0:
        await channel.finish(remote.success())
    else:
        await channel.finish(remote.exited(code))


async def _with_pipes(container: ContainerId, command: Sequence[str], channel: Channel, stdin: bool) -> int | None:
    process = await asyncio.create_subprocess_exec(
        *runtime.exec_command(container, command, tty=False),
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    feeder = asyncio.create_task(_feed(channel, process.stdin)) if process.stdin else None
    outputs = [
        asyncio.create_task(_drain(process.stdout, channel, Stream.STDOUT)),
        asyncio.create_task(_drain(process.stderr, channel, Stream.STDERR)),
    ]
    ended = asyncio.create_task(process.wait())
    gone = asyncio.create_task(channel.closed.wait())
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return None
        # A background child may hold the pipes open; the command itself is what was asked for.
        await asyncio.wait(outputs, timeout=5)
        return _exit_code(ended.result())
    finally:
        for task in (feeder, gone, *outputs):
            if task is not None:
                task.cancel()
        await _end(process)
        ended.cancel()


async def _with_terminal(container: ContainerId, command: Sequence[str], channel: Channel, stdin: bool) -> int | None:
    master, slave = pty.openpty()
    with contextlib.suppress(asyncio.QueueEmpty):
        _set_size(slave, channel.sizes.get_nowait())
    process = await asyncio.create_subprocess_exec(
        *runtime.exec_command(container, command, tty=True),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(slave)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_CHUNK)
    source, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(master), "rb", 0)
    )
    output = asyncio.create_task(_drain(reader, channel, Stream.STDOUT))
    feeder = asyncio.create_task(_type(channel, master)) if stdin else None
    sizer = asyncio.create_task(_follow_size(channel, master, process))
    ended = asyncio.create_task(process.wait())
    gone = asyncio.create_task(channel.closed.wait())
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return None
        await asyncio.wait({output}, timeout=2)
        return _exit_code(ended.result())
    finally:
        for task in (output, feeder, sizer, gone):
            if task is not None:
                task.cancel()
        await _end(process)
        ended.cancel()
        source.close()
        os.close(master)


async def run_attach(container: ContainerId, channel: Channel, *, stdin: bool, tty: bool) -> None:
    """Join the container's own stdio through conmon's socket until either side ends. Raises OSError when there is
    none.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    with sock:
        await loop.sock_connect(sock, str(runtime.attach_socket(container)))
        feeder = asyncio.create_task(_feed_socket(channel, sock)) if stdin else None
        gone = asyncio.create_task(channel.closed.wait())
        output = asyncio.create_task(_drain_socket(sock, channel, tty=tty))
        try:
            await asyncio.wait({output, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (feeder, gone, output):
                if task is not None:
                    task.cancel()
    if not channel.closed.is_set():
        await channel.finish(remote.success())


async def _feed_socket(channel: Channel, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while (data := await channel.stdin.get()) is not None:
        for at in range(0, len(data), 8192):  # conmon reads packets of this size
            await loop.sock_sendall(sock, data[at : at + 8192])
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


async def _drain_socket(sock: socket.socket, channel: Channel, *, tty: bool) -> None:
    loop = asyncio.get_running_loop()
    while packet := await loop.sock_recv(sock, 16384):
        stream = Stream.STDERR if packet[0] == _ATTACH_STDERR and not tty else Stream.STDOUT
        await channel.send(stream, packet[1:])


async def _feed(channel: Channel, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while (data := await channel.stdin.get()) is not None:
            sink.write(data)
            await sink.drain()
        sink.close()


async def _type(channel: Channel, master: int) -> None:
    loop = asyncio.get_running_loop()
    while (data := await channel.stdin.get()) is not None:
        await loop.run_in_executor(None, os.write, master, data)
    os.write(master, b"\x04")


async def _follow_size(channel: Channel, master: int, process: asyncio.subprocess.Process) -> None:
    while True:
        _set_size(master, await channel.sizes.get())
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGWINCH)


def _set_size(fd: int, size: Size) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size.height, size.width, 0, 0))


async def _drain(source: asyncio.StreamReader, channel: Channel, stream: Stream) -> None:
    with contextlib.suppress(OSError):  # a terminal whose other side closed reads as EIO
        while data := await source.read(_CHUNK):
            await channel.send(stream, data)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _exit_code(code: int) -> int:
    return 128 - code if code < 0 else code
