"""Envoy's schemas at hand: the configurations in docs/l7.md must be valid, and mistakes must be named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mycel.envoy.messages import InvalidResource, from_json, message_class, to_resource
from mycel.envoy.resources import CLUSTER, LISTENER, TypeUrl

DOCUMENT = Path(__file__).parents[3] / "docs/l7.md"
BOOTSTRAP = TypeUrl("type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap")


def documented() -> list[dict[str, Any]]:
    """Bootstrap, listener and cluster, as the page has them."""
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)]


@pytest.mark.parametrize(("index", "type_url"), [(0, BOOTSTRAP), (1, LISTENER), (2, CLUSTER)])
def test_the_documented_configurations_are_valid(index: int, type_url: TypeUrl):
    fields = documented()[index]
    assert to_resource(from_json(type_url, fields)) == to_resource(from_json(type_url, fields))


def test_a_field_that_does_not_exist_is_named():
    with pytest.raises(InvalidResource, match=r"Listener: .*adress"):
        from_json(LISTENER, {"name": "l", "adress": {}})


def test_a_mistake_inside_a_filter_is_named():
    listener = documented()[1]
    listener["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefixes"] = "x"
    with pytest.raises(InvalidResource, match="stat_prefixes"):
        from_json(LISTENER, listener)


def test_a_type_nobody_knows_is_named():
    with pytest.raises(InvalidResource, match=r"cilium\.L7Policy"):
        message_class("cilium.L7Policy")
    with pytest.raises(InvalidResource, match=r"cilium\.L7Policy"):
        from_json(CLUSTER, {"name": "c", "metadata": {"typed_filter_metadata": {"x": {"@type": "a/cilium.L7Policy"}}}})
