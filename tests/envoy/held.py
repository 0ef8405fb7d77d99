"""A story of one port, told to `test_holding`: run as root in an empty network namespace, says "well" at its end."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from pathlib import Path

from mycel.envoy.holding import Holder
from mycel.model.proxy import LISTEN_IPV4

PATIENCE_S = 60


def listener(port: int) -> socket.socket:
    """One as Envoy's."""
    made = socket.socket()
    for level, name, value in (
        (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
        (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1),
        (socket.SOL_IP, socket.IP_TRANSPARENT, 1),
    ):
        made.setsockopt(level, name, value)
    made.bind((LISTEN_IPV4, port))
    made.listen(100)
    made.settimeout(PATIENCE_S)
    return made


def dial(port: int) -> socket.socket:
    return socket.create_connection((LISTEN_IPV4, port), timeout=PATIENCE_S)


def refused(port: int) -> bool:
    try:
        dial(port).close()
    except ConnectionRefusedError:
        return True
    return False


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{LISTEN_IPV4}/32", "dev", "lo"], check=True)
    Path("/proc/sys/net/ipv4/tcp_migrate_req").write_text("1")
    first, second, other = listener(10001), listener(10002), listener(15000)
    holder = Holder(longest_s=8)
    runs = threading.Thread(target=holder.run)
    runs.start()
    while not {10001, 10002} <= holder._seen:  # until it has looked
        time.sleep(0.01)

    first.close()  # Envoy has ended
    second.close()
    other.close()
    assert refused(10001)
    holder.hold()
    clients = [dial(10001) for _ in range(20)]
    lost = dial(10002)
    for number, client in enumerate(clients):
        client.sendall(b"%02d" % number)
    assert refused(10003), "a port Envoy did not listen on"
    assert refused(15000), "the DNS proxy's"
    first = listener(10001)
    # Who waited and who comes now is with the one that listens again.
    clients += [dial(10001) for _ in range(20)]
    for number, client in enumerate(clients[20:], 20):
        client.sendall(b"%02d" % number)
    said: set[bytes] = set()
    for _ in clients:
        accepted, _ = first.accept()
        said.add(accepted.recv(2))
        accepted.sendall(b"ok")
    assert said == {b"%02d" % number for number in range(40)}
    assert all(client.recv(2) == b"ok" for client in clients)
    # The other one does not come back.
    try:
        assert lost.recv(1) == b"", "somebody answered"
    except ConnectionResetError:
        pass
    assert refused(10002)
    assert not refused(10001)
    holder.stop()
    runs.join()
    print("well")


if __name__ == "__main__":
    main()
