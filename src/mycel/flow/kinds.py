"""Kinds of flows and their encoded form.

Most rows differ from an earlier one only in time, sequence and ports. For each kind the message is built
and encoded once, as a template: a complete gRPC frame holding an `observer.GetFlowsResponse`, in which the
places of what varies are known. Encoding a batch then is one join of templates and a few numpy stores over
all rows at once.

Varying numbers are written as varints of fixed width (padded with continuation bits, which every decoder
accepts), so that a template has one length. Order of fields is free in protobuf: what varies comes last.
"""

from typing import NamedTuple

import numpy as np

from mycel import abi
from mycel.api import flow_pb2, observer_pb2
from mycel.flow.describe import Names, complete, describe
from mycel.flow.enrich import Records
from mycel.flow.rows import NAMES, PORT_PROTOCOLS, ROW, Numbers, Rows, group, kind_keys
from mycel.flow.uuids import UuidSpace

_CACHED_KINDS = 16_384
_L4_FIELDS = {6: b"\x0a", 17: b"\x12", 132: b"\x2a"}
_TIME = b"\x08" + bytes(5) + b"\x10" + bytes(5)  # Timestamp{seconds 1, nanos 2}, five octets each
_PORTS = b"\x08" + bytes(3) + b"\x10" + bytes(3)  # {source_port 1, destination_port 2}, three octets each
_NODE_NAME = b"\xc2\x3e"  # field 1000
_RESPONSE_TIME = b"\xca\x3e"  # field 1001
_UUID = b"\x92\x02"  # field 34


class Kind(NamedTuple):
    """What rows of one kind share. Offsets are into `template`; -1: it has no ports."""

    flow: flow_pb2.Flow  # without time and uuid, ports 0
    template: bytes
    time_at: int
    uuid_at: int
    ports_at: int
    response_time_at: int


class Batch(NamedTuple):
    """Rows with their kinds: `kinds[kind_of[i]]` is the kind of row i."""

    rows: Rows
    kinds: list[Kind]
    kind_of: Numbers


class Kinds:
    """The kinds seen lately, by content."""

    def __init__(self, records: Records, *, node_name: str) -> None:
        self._records = records
        self._node_name = node_name
        self._known: dict[bytes, Kind] = {}

    def sort(self, rows: Rows) -> Batch:
        """Rows with their kinds; new kinds are built."""
        if not len(rows):
            return Batch(rows, [], np.zeros(0, np.int64))
        keys = kind_keys(rows)
        first, kind_of = group(keys)
        kinds = [self._kind(keys[index].tobytes(), rows[index : index + 1]) for index in first]
        return Batch(rows, kinds, kind_of)

    def forget(self) -> None:
        """Build kinds anew: their records were renumbered or changed."""
        self._known.clear()

    def _kind(self, key: bytes, row: Rows) -> Kind:
        kind = self._known.get(key)
        if kind is None:
            if len(self._known) >= _CACHED_KINDS:
                self._known.clear()
            event = abi.FlowEvent.unpack(row.tobytes())._replace(source_port=0, destination_port=0)
            names = Names(*(int(row[name][0]) for name in NAMES[: len(Names._fields)]))
            flow = describe(event, names, self._records, node_name=self._node_name)
            kind = self._known[key] = _kind(flow, event)
        return kind


def _kind(flow: flow_pb2.Flow, event: abi.FlowEvent) -> Kind:
    with_ports = event.family != 0 and event.protocol in PORT_PROTOCOLS
    fixed = flow_pb2.Flow()
    fixed.CopyFrom(flow)
    if with_ports:
        fixed.ClearField("l4")
    body = bytearray(fixed.SerializeToString())
    body += b"\x0a" + _varint(len(_TIME))
    time_at = len(body)
    body += _TIME
    body += _UUID + _varint(36)
    uuid_at = len(body)
    body += bytes(36)
    ports_at = -1
    if with_ports:
        flags = b""
        if event.protocol == 6:
            encoded = flow.l4.TCP.flags.SerializeToString()
            flags = b"\x1a" + _varint(len(encoded)) + encoded
        segment = _PORTS + flags
        layer = _L4_FIELDS[event.protocol] + _varint(len(segment))
        body += b"\x32" + _varint(len(layer) + len(segment)) + layer
        ports_at = len(body)
        body += segment
    node_name = flow.node_name.encode()
    head = b"\x0a" + _varint(len(body))
    tail = _NODE_NAME + _varint(len(node_name)) + node_name + _RESPONSE_TIME + _varint(len(_TIME))
    length = len(head) + len(body) + len(tail) + len(_TIME)
    start = 5 + len(head)
    template = b"\x00" + length.to_bytes(4, "big") + head + body + tail + _TIME
    return Kind(
        flow=flow,
        template=template,
        time_at=start + time_at,
        uuid_at=start + uuid_at,
        ports_at=start + ports_at if with_ports else -1,
        response_time_at=len(template) - len(_TIME),
    )


def _varint(number: int) -> bytes:
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def _padded(
    numbers: "np.ndarray[tuple[int], np.dtype[np.uint64]]", width: int
) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    """Numbers as varints of `width` octets each."""
    shifts = np.arange(width, dtype=np.uint64) * np.uint64(7)
    octets = (numbers[:, None] >> shifts & np.uint64(0x7F)).astype(np.uint8)
    octets[:, :-1] |= 0x80
    return octets


def encode(batch: Batch, sequences: Numbers, *, uuids: UuidSpace) -> bytes:
    """Rows as gRPC frames, one after the other. `sequences` are the rows' places in the store."""
    if not len(batch.rows):
        return b""
    kinds, kind_of = batch.kinds, batch.kind_of
    lengths = np.array([len(kind.template) for kind in kinds])[kind_of]
    starts = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    end = int(starts[-1] + lengths[-1])
    buffer = bytearray(b"").join([kinds[number].template for number in kind_of.tolist()])
    buffer += bytes(len(_PORTS))  # where rows without ports put theirs
    octets = np.frombuffer(buffer, np.uint8)

    seconds, nanos = np.divmod(batch.rows["wall_ns"], np.uint64(1_000_000_000))
    time = np.empty((len(batch.rows), len(_TIME)), np.uint8)
    time[:, 0], time[:, 6] = 0x08, 0x10
    time[:, 1:6], time[:, 7:12] = _padded(seconds, 5), _padded(nanos, 5)
    for offsets in ([kind.time_at for kind in kinds], [kind.response_time_at for kind in kinds]):
        _store(octets, starts + np.array(offsets)[kind_of], time)
    _store(octets, starts + np.array([kind.uuid_at for kind in kinds])[kind_of], uuids.text(sequences))

    ports = np.empty((len(batch.rows), len(_PORTS)), np.uint8)
    ports[:, 0], ports[:, 4] = 0x08, 0x10
    ports[:, 1:4] = _padded(batch.rows["event"]["source_port"].astype(np.uint64), 3)
    ports[:, 5:8] = _padded(batch.rows["event"]["destination_port"].astype(np.uint64), 3)
    ports_at = np.array([kind.ports_at for kind in kinds])[kind_of]
    _store(octets, np.where(ports_at < 0, end, starts + ports_at), ports)
    return bytes(memoryview(buffer)[:end])


def _store(
    octets: "np.ndarray[tuple[int], np.dtype[np.uint8]]",
    at: Numbers,
    values: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]",
) -> None:
    octets[at[:, None] + np.arange(values.shape[1])] = values


def responses(batch: Batch, sequences: Numbers, *, uuids: UuidSpace) -> list[observer_pb2.GetFlowsResponse]:
    """The same rows as messages, one by one: for few of them, and to check `encode` against."""
    made: list[observer_pb2.GetFlowsResponse] = []
    texts = [octets.tobytes().decode() for octets in uuids.text(sequences)]
    for row, number, uuid in zip(batch.rows, batch.kind_of.tolist(), texts, strict=True):
        flow = complete(
            batch.kinds[number].flow,
            wall_ns=int(row["wall_ns"]),
            uuid=uuid,
            source_port=int(row["event"]["source_port"]),
            destination_port=int(row["event"]["destination_port"]),
        )
        made.append(observer_pb2.GetFlowsResponse(flow=flow, node_name=flow.node_name, time=flow.time))
    return made


assert ROW.fields is not None and ROW.fields["event"][1] == 0, "FlowEvent.unpack reads the head of a row"
