"""Whatever is written where: an object is read, or refused with a field. One that is neither would take agents down."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from mycel.envoy.config.read import read
from mycel.policy.errors import PolicyInvalid

from .objects import Json, config, walkthrough
from .test_fill import secured
from .test_refuse import REFUSED

JUNK: tuple[Any, ...] = (
    *(None, True, 1, -1, 1e308, float("nan"), 2**70, "", "x", "\x00", "1s", "/", "a/b", "%", "\ud800", [], {}, [None]),
    {"@type": "x"},
    {"@type": {}},
    {"@type": "type.googleapis.com/google.protobuf.Any"},
    {"@type": "type.googleapis.com/google.protobuf.Duration"},
    {"@type": "type.googleapis.com/google.protobuf.Struct", "value": 1},
    {"": 1},
    {"\ud800": 1},
)
OBJECTS = (walkthrough("envoy-lb-listener.yaml"), secured("a", "b", authority="c"), config(services=[{"name": "a"}]))
SMALL = (*OBJECTS, *(item for name, item, *_ in REFUSED if name != "too many"))


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in an object."""
    yield path
    if isinstance(value, dict | list):
        parts: Any = value.items() if isinstance(value, dict) else enumerate(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        for key, each in parts:
            yield from paths(each, (*path, key))


def spoilt(chance: random.Random) -> Json:
    """An object with junk in one to three places."""
    item = copy.deepcopy(chance.choice(SMALL))
    for _ in range(chance.randint(1, 3)):
        path = chance.choice([("spec", *each) for each in paths(item.get("spec"))])
        place: Any = item
        for key in path[:-1]:
            place = place[key]
        if isinstance(place, dict) and chance.random() < 0.2:
            place[chance.choice(("name", "@type", "typed_config", "typedConfig", "x"))] = copy.deepcopy(
                chance.choice(JUNK)
            )
        elif isinstance(place, dict | list):
            place[path[-1]] = copy.deepcopy(chance.choice(JUNK))
    return item


@pytest.mark.parametrize("seed", range(8))
def test_junk_is_read_or_refused(seed: int):
    chance = random.Random(seed)
    for _ in range(250):
        item = spoilt(chance)
        try:
            read(item)
        except PolicyInvalid as refused:
            assert refused.path.startswith("spec"), refused
