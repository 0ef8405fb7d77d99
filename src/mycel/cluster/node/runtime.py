"""Containers through `runc`, each held by a `conmon`: it owns stdio, writes the log in CRI format and the exit
code to a file.

Both outlive this program, so a restart adopts what runs: `inspect` says what a container does from its folder and
pid alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mycel.cluster import linux
from mycel.cluster.node.errors import RunError
from mycel.cluster.node.names import ContainerId, Object

RUNC = "/usr/sbin/runc"
CONMON = "/usr/bin/conmon"
RUNC_ROOT = Path("/run/runc")
EXITS = Path("/run/mycel-exits")
_SOCKETS = Path("/run/conmon")
_CREATE_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container's run ended."""

    code: int
    at: datetime


def prepare() -> None:
    """Folders of the node's own /run; to be called once at start."""
    for folder in (RUNC_ROOT, EXITS, _SOCKETS):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)


async def create(container: ContainerId, bundle: Path, config: Object, log: Path, *, stdin: bool, tty: bool) -> int:
    """Create the container (its process waits to be started) and return its pid. Raises RunError with runc's words."""
    (bundle / "config.json").write_bytes(msgspec.json.encode(config))
    log.parent.mkdir(parents=True, exist_ok=True)
    sync_r, sync_w = os.pipe2(os.O_CLOEXEC)
    command = [
        CONMON, "--cid", container, "--cuuid", container[:24], "--name", container[:12], "--runtime", RUNC,
        "--bundle", str(bundle),
        "--container-pidfile", str(bundle / "pid"), "--conmon-pidfile", str(bundle / "conmon.pid"),
        "--log-path", f"k8s-file:{log}", "--exit-dir", str(EXITS), "--socket-dir-path", str(_SOCKETS),
        "--log-level", "error",
        "--runtime-arg", f"--root={RUNC_ROOT}", "--no-sync-log",
        *(["--stdin"] if stdin else []), *(["--terminal"] if tty else []),
    ]  # fmt: skip
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin"), "_OCI_SYNCPIPE": str(sync_w)},
            pass_fds=[sync_w],
        )
    finally:
        os.close(sync_w)
    try:
        async with asyncio.timeout(_CREATE_TIMEOUT_S):
            said = await _read_line(sync_r)
    except TimeoutError as exc:
        raise RunError(f"the container was not created within {_CREATE_TIMEOUT_S} s") from exc
    await process.wait()
    try:
        answer = msgspec.json.decode(said, type=dict[str, object]) if said else {}
    except msgspec.MsgspecError:
        answer = {"message": said.decode(errors="replace")}
    pid = answer.get("pid", -1)
    if not isinstance(pid, int) or pid <= 0:
        raise _refused(str(answer.get("message") or _log_tail(log) or "conmon could not create the container"))
    return pid


async def start(container: ContainerId) -> None:
    """Let the created container's process begin. Raises RunError: 127 for a missing program, 126 for one that
    cannot run.
    """
    code, output = await run("start", container)
    if code != 0:
        raise _refused(output)


async def kill(container: ContainerId, bundle: Path, number: int) -> None:
    """Send a signal to the container's first process; a container that has ended is no error.

    Done here while its conmon vouches for the pid: a `runc` per signal costs more than all the rest of an end.
    """
    try:
        pid = int((bundle / "pid").read_text())
        process = os.pidfd_open(pid)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        await run("kill", container, str(number))
        return
    try:
        if alive(bundle):  # asked after the descriptor is open: it cannot come to mean another process
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.Signals(number))
            return
    finally:
        os.close(process)
    await run("kill", container, str(number))


async def delete(container: ContainerId, bundle: Path) -> None:
    """Remove the container with everything of it: processes, control groups, bundle."""
    if (RUNC_ROOT / container).exists():
        await run("delete", "--force", container)
    with contextlib.suppress(FileNotFoundError):
        (EXITS / container).unlink()
    with contextlib.suppress(FileNotFoundError):
        (_SOCKETS / container[:24]).unlink()
    await asyncio.get_running_loop().run_in_executor(None, _remove_bundle, bundle)


def _remove_bundle(bundle: Path) -> None:
    if (bundle / "rootfs").is_mount():  # a loaded image's layers
        with contextlib.suppress(OSError):
            linux.umount(bundle / "rootfs")
    shutil.rmtree(bundle, ignore_errors=True)


def exit_of(container: ContainerId) -> Exit | None:
    """How the container ended, or None while it runs (or when conmon died before it could say)."""
    path = EXITS / container
    try:
        text = path.read_text().strip()
        at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
    return Exit(int(text), at) if text else None


def alive(bundle: Path) -> bool:
    """Whether the container's first process still runs."""
    try:
        pid = int((bundle / "pid").read_text())
        conmon = int((bundle / "conmon.pid").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return linux.start_time(pid) is not None and _is_child_of(pid, conmon)


def held(bundle: Path) -> bool:
    """Whether the container's conmon still runs: it writes the exit file, however long after the process's end."""
    try:
        conmon = int((bundle / "conmon.pid").read_text())
        command = Path(f"/proc/{conmon}/cmdline").read_bytes()  # empty for one that has ended
    except (OSError, ValueError):
        return False
    return os.fsencode(bundle) in command.split(b"\0")


async def execute(
    container: ContainerId, command: Sequence[str], *, timeout_s: float | None = None
) -> tuple[int, bytes]:
    """Run a command in the container and return (exit code, output of both streams). Raises TimeoutError; it is
    then killed.
    """
    process = await asyncio.create_subprocess_exec(
        *exec_command(container, command, tty=False),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return process.returncode or 0, output[-10240:]


def exec_command(container: ContainerId, command: Sequence[str], *, tty: bool) -> list[str]:
    """The command line that runs `command` in the container with our stdio."""
    flags = ["--tty"] if tty else []
    return [RUNC, "--root", str(RUNC_ROOT), "exec", *flags, container, *command]


def attach_socket(container: ContainerId) -> Path:
    """conmon's socket with the stdio of a running container."""
    return _SOCKETS / container[:24] / "attach"


async def run(*arguments: str) -> tuple[int, str]:
    """`runc` with these arguments: (exit code, what it said)."""
    process = await asyncio.create_subprocess_exec(
        RUNC, "--root", str(RUNC_ROOT), *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace").strip()


def reopen_log(bundle: Path) -> None:
    """Tell conmon to open its log file anew, after it was renamed."""
    with contextlib.suppress(OSError):
        fd = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fd, b"2 0 0\n")
        finally:
            os.close(fd)


def resize(bundle: Path, *, width: int, height: int) -> None:
    """Tell conmon the terminal's new size."""
    with contextlib.suppress(OSError):
        fd = os.open(bundle / "winsz", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fd, f"{height} {width}\n".encode())
        finally:
            os.close(fd)


def _refused(message: str) -> RunError:
    """kubelet's exit codes for what could not be started, from runc's words."""
    text = _plain(message)
    if "executable file not found" in text or ("no such file or directory" in text and "exec" in text):
        return RunError(text, code=127)
    if "permission denied" in text:
        return RunError(text, code=126)
    return RunError(text)


def _plain(message: str) -> str:
    """The sentence inside runc's logfmt line."""
    found = message.rpartition("msg=")[2].strip()
    if found.startswith('"') and found.endswith('"'):
        found = found[1:-1].replace('\\"', '"')
    return found or message


def _log_tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-500:]
    except OSError:
        return ""


def _is_child_of(pid: int, parent: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[1]) == parent


async def _read_line(fd: int) -> bytes:
    """Everything up to the first newline or the end, without blocking the loop."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    done: asyncio.Future[bytes] = loop.create_future()
    parts = bytearray()

    def read() -> None:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        parts.extend(data)
        if (not data or b"\n" in data) and not done.done():
            done.set_result(bytes(parts))

    loop.add_reader(fd, read)
    try:
        return await done
    finally:
        loop.remove_reader(fd)
        os.close(fd)
