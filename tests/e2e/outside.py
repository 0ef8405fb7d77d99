"""What lies outside of a cluster: run in a node's network namespace, which has all of 198.18.0.0/15 for its own.

    nsenter --net=… python -m tests.e2e.outside

Answers DNS on 198.18.0.53 (n<k>.outside.test has the k-th address of 198.19.0.0/16, a<k>.outside.test of
198.18.1.0/24), and on TCP port 9999 of every address says which it is. "ready" is printed when it listens.
"""

from __future__ import annotations

import asyncio
import dataclasses
from ipaddress import ip_address
from typing import Any

from mycel.kit import dns
from mycel.kit.dns_records import address_record

RESOLVER, PORT, NETWORK = "198.18.0.53", 9999, "198.18.0.0/15"
_FIRST = {"a": int(ip_address("198.18.1.0")), "n": int(ip_address("198.19.0.0"))}


class _Names(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.parse(data)
        name = query.questions[0].name.lower()
        label = name.partition(".")[0]
        address = ip_address(_FIRST[label[0]] + int(label[1:]))
        answer = dataclasses.replace(query.reply(), answers=(address_record(name, 3600, address),))
        self._transport.sendto(dns.serialize(answer), addr)


async def _say_address(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(str(writer.get_extra_info("sockname")[0]).encode())
    writer.close()


async def main() -> None:
    """Until it is killed."""
    await asyncio.get_running_loop().create_datagram_endpoint(_Names, local_addr=(RESOLVER, 53))
    server = await asyncio.start_server(_say_address, "0.0.0.0", PORT, backlog=1000)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
