"""A Kubernetes Secret → what Envoy gets of it. Pure; nothing here prints what it is given."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from mycel.envoy.config.model import SecretUse
from mycel.envoy.messages import from_json, to_resource
from mycel.envoy.resources import SECRET, Resource

Data = Mapping[str, bytes]


def secret_resource(use: SecretUse, data: Data | None) -> Resource | str:
    """The resource, or what is wrong with the Secret (None: it is not there)."""
    place = f"Secret {use.namespace}/{use.name}"
    if data is None:
        return f"{place} is not there"
    needed = ("ca.crt",) if use.authority else ("tls.crt", "tls.key")
    missing = [key for key in needed if not data.get(key)]
    if missing:
        return f"{place} has no {' and no '.join(missing)}"
    inline = {key: {"inline_bytes": base64.b64encode(data[key]).decode()} for key in needed}
    if use.authority:
        content = {"validation_context": {"trusted_ca": inline["ca.crt"]}}
    else:
        content = {"tls_certificate": {"certificate_chain": inline["tls.crt"], "private_key": inline["tls.key"]}}
    return to_resource(from_json(SECRET, {"name": use.resource, **content}))
