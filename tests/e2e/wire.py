"""Packets from inside of a pod: run with python3, standard library only, NET_RAW for frames.

PROBES is put in front of this text: a list of {"id", "kind": "tcp"|"udp"|"ping"|"frame", "host", "port", "frame",
"wait_s"}. All run at once; one JSON line says which were answered in time. A frame is hex in which the letters MMMMMM
and GGGGGG stand for the pod's MAC and its gateway's.
"""

import json
import pathlib
import socket
import subprocess
import threading


def tcp(probe):
    with socket.create_connection((probe["host"], probe["port"]), timeout=probe["wait_s"]) as connection:
        return bool(connection.recv(8))


def udp(probe):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(probe["wait_s"])
        connection.sendto(b"x" * probe.get("size", 8), (probe["host"], probe["port"]))
        return bool(connection.recv(65535))


def ping(probe):
    return subprocess.run(["ping", "-c1", f"-W{probe['wait_s']}", probe["host"]], capture_output=True).returncode == 0


def frame(probe):
    own = pathlib.Path("/sys/class/net/eth0/address").read_text().strip()
    table = pathlib.Path("/proc/net/arp").read_text().splitlines()
    gateway = next(line.split()[3] for line in table if "eth0" in line)
    raw = bytes.fromhex(probe["frame"])
    for letters, mac in ((b"MMMMMM", own), (b"GGGGGG", gateway)):
        raw = raw.replace(letters, bytes.fromhex(mac.replace(":", "")))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind(("eth0", 0))
        link.send(raw)
    return False


def run(probe, answers):
    try:
        answers[probe["id"]] = globals()[probe["kind"]](probe)
    except OSError as exc:
        answers[probe["id"]] = False if isinstance(exc, (TimeoutError, ConnectionError)) else str(exc)


answers = {}
threads = [threading.Thread(target=run, args=(probe, answers)) for probe in PROBES]  # noqa: F821
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(answers))
