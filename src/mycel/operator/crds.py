"""The definitions of the mesh's kinds: created where missing, updated where older, never taken back to an
older one.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import yaml

from mycel.k8s.client import ApiClient, Patch
from mycel.k8s.errors import AlreadyExists, Conflict
from mycel.k8s.resources import CRDS
from mycel.kit.deploy import crds_dir

log = logging.getLogger(__name__)
VERSION_LABEL = "mycel.dev/schema-version"


def load(directory: Path | None = None) -> list[dict[str, Any]]:
    """The definitions this installation carries."""
    return [
        yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        for path in sorted((directory or crds_dir()).glob("*.yaml"))
    ]


def schema_version(definition: dict[str, Any]) -> tuple[int, ...]:
    """The version a definition says it has; (0,) when it does not say."""
    text = (definition["metadata"].get("labels") or {}).get(VERSION_LABEL, "")
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else (0,)


async def ensure(client: ApiClient, definitions: list[dict[str, Any]]) -> int:
    """Create and update definitions; returns how many were written. Raises ApiError."""
    present = {item["metadata"]["name"]: item for item in (await client.list(CRDS)).items}
    written = await asyncio.gather(
        *(_ensure(client, wanted, present.get(wanted["metadata"]["name"])) for wanted in definitions)
    )
    return sum(written)


async def _ensure(client: ApiClient, wanted: dict[str, Any], current: dict[str, Any] | None) -> bool:
    name = wanted["metadata"]["name"]
    if current is None:
        try:
            await client.create(CRDS, wanted)
        except AlreadyExists:
            return False
        log.info("definition %s created", name)
        return True
    if schema_version(current) >= schema_version(wanted):
        return False
    body = {
        "metadata": {
            "resourceVersion": current["metadata"]["resourceVersion"],
            "labels": wanted["metadata"].get("labels") or {},
        },
        "spec": wanted["spec"],
    }
    try:
        await client.patch(CRDS, name, body, kind=Patch.MERGE)
    except Conflict:
        return False  # another operator was faster
    log.info("definition %s updated", name)
    return True
