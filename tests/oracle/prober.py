"""Sends and answers probes. Runs inside of a pod with python3 and nothing else; talks JSON lines.

Started as `python3 -uc BOOTSTRAP` (see `packets.py`), since stdin is where the questions come from. It answers TCP
connections, UDP datagrams, raw SCTP INITs (the kernel answers ICMP echoes), prints {"ready": true}, and then answers
each line {"window_s", "patience_s", "probes": [{"id", "protocol", "address", "port", "expected"}]} with
{"answered": [ids], "refused": {id: why}}. All probes are out at the same time. What is not expected has the whole
window to come; what is expected is waited for with patience, and asked again, so that a busy machine is no reason to
fail.
"""

import errno
import json
import os
import random
import selectors
import socket
import struct
import sys
import threading
import time

TCP_PORTS, UDP_PORTS, SCTP_PORTS = (80, 81, 443, 8080), (53, 80, 81), (80, 81)
AGAIN_S = 0.5
IP_PKTINFO = 8  # linux/in.h; the module names it from Python 3.12 on


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def internet_checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def sctp_packet(source_port, port, tag, chunk_type):
    """An INIT (1) or INIT ACK (2) of RFC 9260: tag, window, streams out and in, first sequence number."""
    chunk = struct.pack("!BBHIIHHI", chunk_type, 0, 20, random.getrandbits(32) or 1, 65535, 1, 1, 1)
    head = struct.pack("!HHI", source_port, port, tag)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def sctp_parts(packet):
    """Source address, ports, and the chunk's type and tag of an IPv4 packet; None when it is too short."""
    start = (packet[0] & 15) * 4
    if len(packet) < start + 20:
        return None
    source_port, port = struct.unpack_from("!HH", packet, start)
    return (
        socket.inet_ntoa(packet[12:16]),
        source_port,
        port,
        packet[start + 12],
        struct.unpack_from("!I", packet, start + 16)[0],
    )


def serve():
    """Answer for ever."""
    chosen = selectors.DefaultSelector()
    for port in TCP_PORTS:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))
        listener.listen(256)
        chosen.register(listener, selectors.EVENT_READ, "tcp")
    for port in UDP_PORTS:
        echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        echo.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        echo.bind(("0.0.0.0", port))
        chosen.register(echo, selectors.EVENT_READ, "udp")
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
    chosen.register(raw, selectors.EVENT_READ, "sctp")

    def run():
        while True:
            for key, _ in chosen.select():
                try:
                    answer(key.fileobj, key.data)
                except OSError as exc:  # the peer is gone, or policy of this pod stops the answer
                    print(f"answering: {exc}", file=sys.stderr)

    threading.Thread(target=run, daemon=True).start()


def answer(held, kind):
    """Answers leave from the address that was asked: a node has several."""
    if kind == "tcp":
        held.accept()[0].close()
    elif kind == "udp":
        data, ancillary, _, sender = held.recvmsg(2048, 64)
        (asked,) = [value[8:12] for _, name, value in ancillary if name == IP_PKTINFO]
        send_from(held, asked, data, sender)
    else:
        packet = held.recv(2048)
        parts = sctp_parts(packet)
        if parts and parts[2] in SCTP_PORTS and parts[3] == 1:
            address, source_port, port, _, tag = parts
            send_from(held, packet[16:20], sctp_packet(port, source_port, tag, 2), (address, 0))


def send_from(held, source, data, target):
    held.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, source, bytes(4)))], 0, target)


class Round:
    """One question: all its probes."""

    def __init__(self, question):
        self.question = question
        self.probes = {probe["id"]: probe for probe in question["probes"]}
        self.waiting = set(self.probes)
        self.refused = {}
        self.chosen = selectors.DefaultSelector()
        self.sockets = {}
        self.icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.sctp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
        self.by_number = {}
        for raw, kind in ((self.icmp, "icmp"), (self.sctp, "sctp")):
            raw.setblocking(False)
            self.chosen.register(raw, selectors.EVENT_READ, kind)
        for number, identifier in zip(random.sample(range(20000, 60000), len(self.probes)), self.probes, strict=True):
            self.by_number[number] = identifier
            self.probes[identifier]["number"] = number

    def send(self, probe):
        """The first time, or once more what has no retransmission of its own."""
        identifier, where = probe["id"], (probe["address"], probe.get("port") or 0)
        try:
            if probe["protocol"] == "ICMP":
                body = struct.pack("!HH", probe["number"], 1)
                checksum = internet_checksum(struct.pack("!BBH", 8, 0, 0) + body)
                self.icmp.sendto(struct.pack("!BBH", 8, 0, checksum) + body, (where[0], 0))
            elif probe["protocol"] == "SCTP":
                self.sctp.sendto(sctp_packet(probe["number"], where[1], 0, 1), (where[0], 0))
            elif identifier in self.sockets:
                if probe["protocol"] == "UDP":
                    self.sockets[identifier].send(b"probe")
            else:
                self.open(probe, where)
        except OSError as exc:
            self.refuse(identifier, exc)

    def open(self, probe, where):
        tcp = probe["protocol"] == "TCP"
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        held.setblocking(False)
        self.sockets[probe["id"]] = held
        code = held.connect_ex(where)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        if not tcp:
            held.send(b"probe")
        self.chosen.register(held, selectors.EVENT_WRITE if tcp else selectors.EVENT_READ, probe["id"])

    def refuse(self, identifier, exc):
        """An error is an answer only if the peer gave it."""
        self.refused[identifier] = str(exc)
        if exc.errno == errno.ECONNREFUSED:
            self.waiting.discard(identifier)

    def arrived(self, held, kind):
        if kind == "icmp":
            packet = held.recv(2048)
            start = (packet[0] & 15) * 4
            if packet[start] == 0:
                self.heard(struct.unpack_from("!H", packet, start + 4)[0], "ICMP", packet)
        elif kind == "sctp":
            packet = held.recv(2048)
            parts = sctp_parts(packet)
            if parts and parts[3] == 2:
                self.heard(parts[2], "SCTP", packet)
        else:
            self.chosen.unregister(held)
            code = held.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self.refuse(kind, OSError(code, os.strerror(code)))
            else:
                self.waiting.discard(kind)

    def heard(self, number, protocol, packet):
        identifier = self.by_number.get(number)
        probe = self.probes.get(identifier)
        if probe and (probe["protocol"], probe["address"]) == (protocol, socket.inet_ntoa(packet[12:16])):
            self.waiting.discard(identifier)

    def run(self):
        for probe in self.probes.values():
            self.send(probe)
        started = again = time.monotonic()
        while True:
            now = time.monotonic()
            hoped = [i for i in self.waiting if self.probes[i]["expected"]]
            window = started + self.question["window_s"]
            if now >= window and (not hoped or now >= started + self.question["patience_s"]):
                break
            if now >= again + AGAIN_S:
                again = now
                for identifier in hoped:
                    self.send(self.probes[identifier])
            for key, _ in self.chosen.select(max(0.0, window - now) or 0.05):
                self.arrived(key.fileobj, key.data)
        for held in (*self.sockets.values(), self.icmp, self.sctp):
            held.close()
        answered = [identifier for identifier in self.probes if identifier not in self.waiting]
        return {"answered": answered, "refused": self.refused}


def main():
    serve()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(Round(json.loads(line)).run()), flush=True)


if __name__ == "__main__":
    main()
