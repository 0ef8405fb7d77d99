"""`hubble-dial`: copies standard input and output to and from the Observer's unix socket of this container.

The command line reaches an agent by exec, so gRPC travels over that connection and no TCP port is opened.
Standard library only and no imports from the mesh: it starts in some 20 ms.

    hubble-dial [/var/run/cilium/hubble.sock]
"""

import os
import socket
import sys
import threading

DEFAULT_SOCKET = "/var/run/cilium/hubble.sock"
_CHUNK = 65_536


def main(arguments: list[str] | None = None) -> int:
    """Copy until either side ends. Returns 1 when nobody listens on the socket."""
    words = sys.argv[1:] if arguments is None else arguments
    path = words[0] if words else os.environ.get("HUBBLE_SOCKET", DEFAULT_SOCKET)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(path)
    except OSError as problem:
        print(f"hubble-dial: {path}: {problem.strerror}: is the agent of this node ready?", file=sys.stderr)
        return 1
    # Daemon: a blocked read of stdin must not outlive the server's end.
    threading.Thread(target=_send, args=(line,), daemon=True).start()
    try:
        while data := line.recv(_CHUNK):
            _write_all(1, data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the other end went away, which is how a client leaves
    finally:
        line.close()
    return 0


def _send(line: socket.socket) -> None:
    try:
        while data := os.read(0, _CHUNK):
            line.sendall(data)
        line.shutdown(socket.SHUT_WR)
    except OSError:
        line.close()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


if __name__ == "__main__":
    # os._exit: the sender may still sit in a read of stdin, and interpreter shutdown would wait for its lock.
    code = main()
    sys.stderr.flush()
    os._exit(code)
