"""Encoded frames are the messages they stand for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mycel.api import observer_pb2
from mycel.flow import rows as rows_module
from mycel.flow.kinds import Batch, encode, responses
from mycel.flow.rows import group
from tests.unit.flow.samples import ECHO, UUIDS, WORLD, address, batch, event


def parse_frames(data: bytes) -> list[observer_pb2.GetFlowsResponse]:
    """Messages of a run of gRPC frames."""
    found: list[observer_pb2.GetFlowsResponse] = []
    while data:
        assert data[0] == 0
        length = int.from_bytes(data[1:5], "big")
        found.append(observer_pb2.GetFlowsResponse.FromString(data[5 : 5 + length]))
        data = data[5 + length :]
    return found


EVENTS = st.builds(
    event,
    time_ns=st.integers(0, 2**62),
    source=st.sampled_from([ECHO, WORLD, address("fd00::9")]),
    source_port=st.integers(0, 65535),
    destination_port=st.integers(0, 65535),
    kind=st.sampled_from([1, 4, 5, 7]),
    sub_type=st.sampled_from([0, 3, 11, 133, 181]),
    verdict=st.integers(0, 7),
    direction=st.integers(0, 2),
    protocol=st.sampled_from([0, 1, 2, 6, 17, 58, 112, 132, 200]),
    tcp_flags=st.integers(0, 255),
    icmp_type=st.sampled_from([0, 3, 8, 128, 250]),
    is_reply=st.integers(0, 2),
    policy_match=st.integers(0, 6),
    family=st.sampled_from([0, 4, 6]),
    ifindex=st.sampled_from([0, 3, 4]),
    proxy_port=st.sampled_from([0, 10_000]),
    length=st.integers(0, 2**32 - 1),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=12))
def test_frames_equal_messages(listed: list) -> None:
    """The fast way and the plain way say the same, for any mix of events."""
    made = batch(*listed)
    sequences = np.arange(len(made.rows)) + 7
    assert responses(made, sequences, uuids=UUIDS) == parse_frames(encode(made, sequences, uuids=UUIDS))


def test_rows_that_differ_in_ports_and_time_share_a_kind() -> None:
    """A template is made once per kind, not per connection."""
    made = batch(*(event(time_ns=port, source_port=port, length=port) for port in range(1, 500)), event(tcp_flags=16))
    assert len(made.kinds) == 2


def test_part_of_a_batch_can_be_encoded() -> None:
    """A filter's choice keeps kinds, times and uuids together."""
    made = batch(event(time_ns=1), event(time_ns=2, protocol=17), event(time_ns=3))
    chosen = np.array([0, 2])
    part = Batch(made.rows[chosen], made.kinds, made.kind_of[chosen])
    whole = parse_frames(encode(made, np.arange(3), uuids=UUIDS))
    assert [whole[0], whole[2]] == parse_frames(encode(part, chosen, uuids=UUIDS))


def test_nothing_encodes_to_nothing() -> None:
    """An empty batch has no frames."""
    made = batch(event())
    empty = Batch(made.rows[:0], made.kinds, made.kind_of[:0])
    assert encode(empty, np.arange(0), uuids=UUIDS) == b""


def test_digest_collisions_do_not_mix_rows(monkeypatch) -> None:
    """Should two rows have the same digest, content decides."""
    monkeypatch.setattr(rows_module, "_digest", lambda keys: np.zeros(len(keys), np.uint64))
    keys = np.array([[1, 2], [3, 4], [1, 2]], np.uint64)
    first, group_of = group(keys)
    assert keys[first[group_of]].tolist() == [[1, 2], [3, 4], [1, 2]]
    assert len(first) == 2
