"""Which form of an answer the client wants: plain objects, tables, metadata only, JSON or YAML."""

from __future__ import annotations

import functools
from enum import Enum
from typing import NamedTuple

from mycel.cluster.apiserver.errors import ApiFault


class Form(Enum):
    """What an answer consists of."""

    OBJECT = "object"
    TABLE = "table"
    METADATA = "metadata"


class Wanted(NamedTuple):
    """The chosen form; `version` is that of the meta.k8s.io kinds."""

    form: Form
    version: str
    yaml: bool


@functools.lru_cache(maxsize=256)
def choose(accept: str) -> Wanted:
    """The first alternative of an Accept header that we can answer with; ApiFault 406 when there is none."""
    if not accept:
        return Wanted(Form.OBJECT, "v1", yaml=False)
    for alternative in accept.split(","):
        media, *parameters = (part.strip() for part in alternative.split(";"))
        options = {name: value for name, _, value in (parameter.partition("=") for parameter in parameters)}
        if media not in ("application/json", "application/yaml", "application/*", "*/*", "text/*", "text/plain"):
            continue
        yaml = media == "application/yaml"
        kind = options.get("as", "")
        version = options.get("v", "v1")
        if not kind:
            return Wanted(Form.OBJECT, "v1", yaml)
        if options.get("g") != "meta.k8s.io" or version not in ("v1", "v1beta1"):
            continue
        if kind == "Table":
            return Wanted(Form.TABLE, version, yaml)
        if kind in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return Wanted(Form.METADATA, version, yaml)
    raise ApiFault(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/yaml",
    )
