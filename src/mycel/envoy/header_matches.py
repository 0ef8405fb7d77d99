"""headerMatches of HTTP rules → what a rule asks, conditions of RBAC, and filters that change a header. Pure.

What a Secret holds is no part of a listener: Envoy asks for it by name (SDS) and remembers it in the request's filter
state; conditions (CEL) compare it there, and what is put into a header is read from there. One that Envoy does not have
(yet) lets nothing match.

Changes are decided before the first of them is made: of each an RBAC filter that only looks (`shadow_rules`) notes
whether its rule matches and its header does not, and the change is skipped where the note says otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mycel.envoy.matchers import Asked, Json, has, permissions, policy
from mycel.envoy.parts import ADS
from mycel.policy.http import ACTIONS, SecretRef, secret_of

_TYPE = "type.googleapis.com/envoy.extensions."
_RBAC = f"{_TYPE}filters.http.rbac.v3.RBAC"
_STATE = "mycel.secret."
_HEADERS: Json = {"selectExpr": {"operand": {"identExpr": {"name": "request"}}, "field": "headers"}}
_PUT = {"REPLACE": "OVERWRITE_IF_EXISTS_OR_ADD", "ADD": "APPEND_IF_EXISTS_OR_ADD"}


class Match(NamedTuple):
    """One of headerMatches: the header has this value, which is written here or in a Secret; with neither, any."""

    name: str  # in lower case
    value: str
    secret: SecretRef | None
    mismatch: str  # empty: the rule does not match; LOG; or one of ACTIONS

    @property
    def header(self) -> Json:
        """A HeaderMatcher for the value that is written here."""
        return has(self.name, self.value or None)

    @property
    def condition(self) -> Json:
        """CEL's words for a header with the Secret's value. The list of several headers of a name is one value."""
        assert self.secret is not None
        named = {"constExpr": {"stringValue": self.name}}
        same = _call("_==_", _call("_[_]", _HEADERS, named), _remembered(self.secret))
        return _call("_&&_", _call("@in", named, _HEADERS), same)


Changes = Mapping[Match, Sequence[Json]]
"""What is done to headers, in this order, and for which requests: RBAC's policies, of which any must match."""


def match_of(item: Mapping[str, Any], there: Collection[SecretRef]) -> Match | None:
    """A match, when it may use what is `there`; None: its Secret is not and no value stands in, so it never matches."""
    secret, value = secret_of(item), item.get("value") or ""
    if secret is not None and secret not in there:
        if not value:
            return None
        secret = None
    return Match(item["name"].lower(), "" if secret else value, secret, item.get("mismatch") or "")


def needs(matches: Iterable[Match]) -> tuple[list[Json], list[Json]]:
    """What a rule with these matches asks of a request: HeaderMatchers, and conditions about Secrets."""
    headers: list[Json] = []
    conditions: list[Json] = []
    for each in matches:
        if each.secret is not None:
            conditions.append(_is_known(each.secret) if each.mismatch else each.condition)
        elif not each.mismatch:
            headers.append(each.header)
    return headers, conditions


def change(match: Match, rule: Asked, conditions: list[Json]) -> Json | None:
    """RBAC's policy for requests of which a match changes its header, in a rule that asks for these; None: of none."""
    if match.mismatch not in ACTIONS:
        return None
    if match.secret is not None:
        return policy(permissions(rule), together([*conditions, _call("!_", match.condition)]))
    if match.mismatch == "DELETE" and not match.value:
        return None  # it is not there
    return policy([*permissions(rule), {"not_rule": {"header": match.header}}], together(conditions))


def together(conditions: Sequence[Json]) -> Json | None:
    """One condition for all of these."""
    return functools.reduce(lambda one, other: _call("_&&_", one, other), conditions) if conditions else None


def order(match: Match) -> tuple[int, str, str, str]:
    """Headers are deleted, then replaced, then added to, whatever the order of rules."""
    return ACTIONS.index(match.mismatch), match.name, match.value, str(match.secret or "")


def remembering(secrets: Collection[SecretRef]) -> list[Json]:
    """The filter that brings Secrets' values into a request's filter state; none when there are none."""
    if not secrets:
        return []
    values = [
        {
            "object_key": _state(each),
            "factory_key": "envoy.string",
            "skip_if_empty": True,
            "format_string": {
                "text_format_source": {"inline_string": "%SECRET(value)%"},
                "omit_empty_values": True,
                "formatters": [_formatter(each)],
            },
        }
        for each in sorted(secrets)
    ]
    return [_filter("secrets", f"{_TYPE}filters.http.set_filter_state.v3.Config", {"on_request_headers": values})]


def _formatter(secret: SecretRef) -> Json:
    named = {"value": {"name": resource_name(secret), "sds_config": ADS}}
    return _filter("secret", f"{_TYPE}formatter.generic_secret.v3.GenericSecret", {"secret_configs": named})


def resource_name(secret: SecretRef) -> str:
    """The name Envoy asks for; that of a certificate has no such ending."""
    return f"{secret}:value"


def deciding(changes: Changes) -> list[Json]:
    """Filters that note which changes are to be made."""
    return [
        _filter(
            "look",
            _RBAC,
            {
                "shadow_rules": {"action": "ALLOW", "policies": {str(place): each for place, each in enumerate(when)}},
                "shadow_rules_stat_prefix": f"change{number}.",
            },
        )
        for number, when in enumerate(changes.values())
    ]


def changing(changes: Changes) -> list[Json]:
    """Filters that make them."""
    return [_unless_skipped(number, _mutation(each)) for number, each in enumerate(changes)]


def _mutation(match: Match) -> Json:
    if match.mismatch == "DELETE":
        made: Json = {"remove": match.name}
    else:
        value = f"%FILTER_STATE({_state(match.secret)}:PLAIN)%" if match.secret else match.value.replace("%", "%%")
        header = {"key": match.name, "value": value}
        made = {"append": {"header": header, "append_action": _PUT[match.mismatch], "keep_empty_value": True}}
    kind = f"{_TYPE}filters.http.header_mutation.v3.HeaderMutation"
    return _filter("change", kind, {"mutations": {"request_mutations": [made]}})


def _unless_skipped(number: int, changes: Json) -> Json:
    note = _filter(
        "note",
        f"{_TYPE}matching.common_inputs.network.v3.DynamicMetadataInput",
        {"filter": "envoy.filters.http.rbac", "path": [{"key": f"change{number}.shadow_engine_result"}]},
    )
    says = {"value": {"string_match": {"exact": "allowed"}}}
    test = _filter("says", f"{_TYPE}matching.input_matchers.metadata.v3.Metadata", says)
    skip = _filter("skip", f"{_TYPE}filters.common.matcher.action.v3.SkipFilter", {})
    not_noted = {"not_matcher": {"single_predicate": {"input": note, "custom_match": test}}}
    matcher = {"matcher_list": {"matchers": [{"predicate": not_noted, "on_match": {"action": skip}}]}}
    kind = f"{_TYPE}common.matching.v3.ExtensionWithMatcher"
    return _filter("maybe", kind, {"extension_config": changes, "xds_matcher": matcher})


def _filter(name: str, kind: str, fields: Json) -> Json:
    return {"name": name, "typed_config": {"@type": kind, **fields}}


def _state(secret: SecretRef) -> str:
    return f"{_STATE}{secret}"


def _call(function: str, *arguments: Json) -> Json:
    return {"callExpr": {"function": function, "args": list(arguments)}}


def _remembered(secret: SecretRef) -> Json:
    state: Json = {"identExpr": {"name": "filter_state"}}
    return _call("string", _call("_[_]", state, {"constExpr": {"stringValue": _state(secret)}}))


def _is_known(secret: SecretRef) -> Json:
    """False, by its error, while Envoy has not got it."""
    return _call("_!=_", _remembered(secret), {"constExpr": {"stringValue": ""}})
