"""The first connection after a DNS answer: run inside a pod with python3, standard library only.

    python3 - FIRST COUNT DNS_SERVER PORT < first_connections.py

Asks for n<FIRST>.outside.test and the next COUNT - 1 names, each of which has an address of its own, and dials that at
once. Then dials all of them again. One JSON line: {"tries": n, "addresses": n, "failed": [what was not answered at
once], "again_failed": […]}: at once means that no packet was sent twice.
"""

import json
import socket
import struct
import sys

RETRANSMITTED = 100  # bytes into struct tcp_info (linux/tcp.h): tcpi_total_retrans
PATIENCE_S = 60


def look_up(made, number, name):
    labels = b"".join(bytes([len(each)]) + each for each in name.encode().split(b"."))
    made.send(struct.pack("!H", number % 65536) + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1")
    while True:
        wire = made.recv(4096)
        if wire[:2] == struct.pack("!H", number % 65536):
            break
    if wire[3] & 15 or wire[6:8] != b"\0\1":
        raise OSError(f"answer {wire[:8].hex()}")
    return socket.inet_ntoa(wire[-4:])


def dial(address, port):
    """Empty when all went well."""
    try:
        with socket.create_connection((address, port), timeout=PATIENCE_S) as made:
            said = made.recv(64).decode()
            information = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError as exc:
        return f"{address}: {type(exc).__name__} {exc}"
    (again,) = struct.unpack_from("=I", information, RETRANSMITTED)
    if said != address:
        return f"{address}: {said!r} answered"
    return f"{address}: {again} packets were sent again" if again else ""


def main(first, count, server, port):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(PATIENCE_S)
    made.connect((server, 53))
    addresses, failed = [], []
    print("ready", flush=True)
    for number in range(first, first + count):
        try:
            addresses.append(look_up(made, number, f"n{number}.outside.test"))
        except OSError as exc:
            failed.append(f"n{number}: {type(exc).__name__} {exc}")
            continue
        if wrong := dial(addresses[-1], port):
            failed.append(wrong)
    again = [wrong for address in addresses if (wrong := dial(address, port))]
    told = {"tries": count, "addresses": len(set(addresses)), "failed": failed[:20], "again_failed": again[:20]}
    print(json.dumps(told), flush=True)


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
