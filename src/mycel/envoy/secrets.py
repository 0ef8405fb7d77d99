"""A Kubernetes Secret → what Envoy gets of it. Pure; nothing here prints what it is given."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from mycel.envoy.config.model import SecretUse
from mycel.envoy.header_matches import resource_name
from mycel.envoy.messages import from_json, to_resource
from mycel.envoy.resources import SECRET, Resource
from mycel.policy.http import SecretRef, is_value

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


def header_value(secret: SecretRef, data: Data | None) -> Resource | str:
    """What headers are compared with, or changed to, of a Secret; or what is wrong with it (None: it is not there)."""
    if secret.foreign:
        return f"Secret {secret} is in another namespace than this policy"
    if data is None:
        return f"Secret {secret} is not there"
    if len(data) != 1:
        return f"Secret {secret} has {len(data)} keys: a header's value is a Secret's only one"
    ((key, value),) = data.items()
    try:
        usable = is_value(value.decode())
    except UnicodeDecodeError:
        usable = False
    if not usable or not value:
        return f"Secret {secret}, key {key}, is no value of a header: text, without line breaks or spaces around it"
    content = {"generic_secret": {"secret": {"inline_bytes": base64.b64encode(value).decode()}}}
    return to_resource(from_json(SECRET, {"name": resource_name(secret), **content}))
