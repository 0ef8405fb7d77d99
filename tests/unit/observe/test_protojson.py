"""Our JSON is protobuf's JSON."""

import json

from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from mycel.api import observer_pb2
from mycel.flow.kinds import responses
from mycel.observe.protojson import to_json
from tests.unit.flow.samples import UUIDS, batch
from tests.unit.flow.test_kinds import EVENTS


@settings(max_examples=40, deadline=None)
@given(EVENTS)
def test_same_as_json_format(made) -> None:
    """Value for value the same as the library's conversion, with the .proto file's names."""
    import numpy as np

    (response,) = responses(batch(made), np.arange(1), uuids=UUIDS)
    expected = json_format.MessageToDict(response, preserving_proto_field_name=True)
    assert expected == json.loads(to_json(response))


@given(st.integers(0, 999_999_999))
def test_timestamps(nanos: int) -> None:
    """No more digits than needed, in groups of three."""
    response = observer_pb2.GetFlowsResponse()
    response.time.seconds, response.time.nanos = 1_766_066_857, nanos
    assert json.loads(to_json(response))["time"] == response.time.ToJsonString()


def test_long_numbers_and_wrappers() -> None:
    """64-bit numbers are text, wrappers their value, unknown enum values numbers."""
    lost = observer_pb2.GetFlowsResponse()
    lost.lost_events.num_events_lost = 2**60
    lost.lost_events.cpu.value = 3
    lost.lost_events.source = 77  # type: ignore[assignment]
    assert to_json(lost) == f'{{"lost_events":{{"source":77,"num_events_lost":"{2**60}","cpu":3}}}}'
