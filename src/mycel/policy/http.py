"""HTTP rules of policies: checked, with the namespaces of the Secrets they name. Nothing here sees what is in one."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mycel.model.references import foreign
from mycel.policy.expressions import MOST_STEPS, expression_problem
from mycel.policy.fields import Field
from mycel.policy.rules import L7

_FIELDS = ("method", "path", "host", "headers", "headerMatches")
ACTIONS = ("DELETE", "REPLACE", "ADD")
"""What a match that fails may do to its header, in the order in which it is done."""
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
# Where a message ends, to whom it goes, what Envoy itself obeys: not what a rule about requests may change.
_KEPT = re.compile(
    r"host|connection|content-length|expect|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade|x-envoy-.*"
)
_AFTER_HOST_STEPS = 20
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SECRET = re.compile(r"[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?")


class SecretRef(NamedTuple):
    """A Secret that a rule names. `foreign`: it is not the policy's to name, and is never read."""

    namespace: str
    name: str
    foreign: bool = False

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def http_rule(field: Field, home: str) -> dict[str, Any]:
    """A rule as it is carried; `home` is the policy's namespace, empty when it is clusterwide. Raises PolicyInvalid."""
    field.knows(*_FIELDS)
    for name in ("method", "path", "host"):
        if text := field[name].text(""):
            problem = expression_problem(text)
            if not problem and name == "host":  # compared without case, with what may follow a host
                problem = expression_problem(f"(?i)(?:{text})", most_steps=MOST_STEPS - _AFTER_HOST_STEPS)
            if problem:
                raise field[name].fail(problem)
    for each in field["headers"].items():
        name, _, value = each.text().partition(":")
        _header(each, name.strip(" \t"), each, value.strip(" \t"))
    matches = [_match(each, home) for each in field["headerMatches"].items()]
    return field.mapping() | ({"headerMatches": matches} if matches else {})


def _match(field: Field, home: str) -> dict[str, Any]:
    field.knows("name", "value", "secret", "mismatch")
    name, value = field["name"].text(), field["value"].text("")
    action = field["mismatch"].choice("", "LOG", *ACTIONS, default="")
    _header(field["name"], name, field["value"], value)
    if action in ACTIONS and _KEPT.fullmatch(name.lower()):
        raise field["name"].fail(f"{name!r} may be matched, and not changed: requests are told apart by it")
    found: dict[str, Any] = {"name": name, "value": value, "mismatch": action}
    if not field["secret"].absent:
        found["secret"] = _secret(field["secret"], home)._asdict()
    return {key: each for key, each in found.items() if each}


def _header(at_name: Field, name: str, at_value: Field, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise at_name.fail(f"{name!r} is no name of a header: a value comes after a colon")
    if not is_value(value):
        raise at_value.fail("is no value of a header: it has control characters, or spaces around it")


def _secret(field: Field, home: str) -> SecretRef:
    field.knows("name", "namespace")
    name, namespace = field["name"].text(), field["namespace"].text("") or home
    if not _SECRET.fullmatch(name):
        raise field["name"].fail(f"{name!r} is no name of a Secret")
    if not namespace:
        raise field["namespace"].fail("is needed: a clusterwide policy has no namespace of its own")
    if not _NAMESPACE.fullmatch(namespace):
        raise field["namespace"].fail(f"{namespace!r} is no name of a namespace")
    return SecretRef(namespace, name, foreign(home, namespace))


def is_value(text: str) -> bool:
    """Whether a header may have this value."""
    return bool(_VALUE.fullmatch(text)) and text == text.strip(" \t")


def secret_of(match: Mapping[str, Any]) -> SecretRef | None:
    """The Secret an item of headerMatches names, of a rule as it is carried."""
    found = match.get("secret")
    return SecretRef(**found) if found else None


def secrets_of(sections: Iterable[L7 | None]) -> frozenset[SecretRef]:
    """The Secrets that the rules of these sections name."""
    return frozenset(found for section in sections if section is not None for found in _secrets_of_one(section))


@functools.lru_cache(maxsize=8192)
def _secrets_of_one(section: L7) -> frozenset[SecretRef]:
    if section.parser != "http":
        return frozenset()
    return frozenset(
        found
        for rule in json.loads(section.rules).get("rules", ())
        for match in rule.get("headerMatches") or ()
        if (found := secret_of(match)) is not None
    )
