"""Names of TLS servers in policies → what a listener does with a connection, by the name its client asks for. Pure.

TLS is told by its first bytes and not ended: nothing in it is seen. What is no TLS goes on to the HTTP rules of the
same listener; without any, and without a rule for everything, it ends. So does TLS with another name, or none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from mycel.envoy.logs import Shown, tls_logs
from mycel.envoy.matchers import Json, Unsupported
from mycel.envoy.parts import SERVERS_MAY_BEGIN, tcp_proxy
from mycel.envoy.request_log import DENIED, NO_TLS
from mycel.policy.l7 import is_server_name, server_names
from mycel.policy.requests import ANY_REQUEST
from mycel.policy.rules import L7

_TYPE = "type.googleapis.com/envoy.extensions."
_INPUTS = f"{_TYPE}matching.common_inputs.network.v3."
_LABELS = {"": "", "*.": r"[^.]+\.", "**.": r"(?:[^.]+\.)+"}
_NOWHERE = "denied"  # no cluster has this name: Envoy ends what is sent there


def names_by_rule(sections: Sequence[L7 | None]) -> dict[str, tuple[str, ...]]:
    """The names of each section of kind tls, called `section/0`. Raises Unsupported."""
    found: dict[str, tuple[str, ...]] = {}
    for number, section in enumerate(sections):
        if section is not None and section.parser == "tls":
            if others := json.loads(section.rules).keys() - {"serverNames"}:
                raise Unsupported(" and ".join(sorted(others)))
            names = server_names(section)
            if odd := [each for each in names if not is_server_name(each)]:
                raise Unsupported(f"the name {odd[0]!r} in serverNames")
            found[f"{number}/0"] = names
    return found


def tells_tls() -> Json:
    """The listener filter that knows TLS, and the name its client asks for, by its first bytes."""
    return {
        "name": "tls_inspector",
        "typed_config": {"@type": f"{_TYPE}filters.listener.tls_inspector.v3.TlsInspector"},
    }


def by_server_name(
    name: str, cluster: str, rules: Mapping[str, Sequence[str]], plain: Json | None, *, everything: bool, shown: Shown
) -> Json:
    """The fields of a listener beside its address. `plain`: the filter for what is no TLS, where there are HTTP rules.

    `everything`: a rule without names lets TLS with any name pass.
    """
    others = ANY_REQUEST if everything else DENIED
    chains = [_chain(f"{name} {each}", _to_server(cluster, each, shown)) for each in (*rules, others)]
    for_plain = f"{name} plain"
    if plain is not None:
        chains.append(_chain(name, plain))
        for_plain = name
    elif everything:
        chains.append(_chain(for_plain, _proxy(cluster, [])))
    else:
        chains.append(_chain(for_plain, _proxy(_NOWHERE, tls_logs(shown, denied=True, protocol=NO_TLS))))
    matchers = [
        *(_when(_input("ServerNameInput"), _names(names), f"{name} {rule}") for rule, names in rules.items()),
        _when(_input("TransportProtocolInput"), {"exact": "tls"}, f"{name} {others}"),
    ]
    return {
        "filter_chains": chains,
        "filter_chain_matcher": {"matcher_list": {"matchers": matchers}, "on_no_match": _to(for_plain)},
        **(SERVERS_MAY_BEGIN if everything and plain is None else {}),
    }


def _to_server(cluster: str, rule: str, shown: Shown) -> Json:
    denied = rule == DENIED
    return _proxy(_NOWHERE if denied else cluster, tls_logs(shown, denied=denied))


def _proxy(cluster: str, logs: Sequence[Mapping[str, object]]) -> Json:
    when = {"flush_access_log_on_connected": True}
    return tcp_proxy(cluster, stat_prefix="policy", access_log=logs, access_log_options=when)


def _chain(name: str, filter: Json) -> Json:
    return {"name": name, "filters": [filter]}


def _names(names: Iterable[str]) -> Json:
    return {"safe_regex": {"google_re2": {}, "regex": f"(?i)(?:{'|'.join(map(_expression, names))})"}}


def _expression(name: str) -> str:
    stars, dot, rest = name.rpartition("*.")
    return _LABELS[stars + dot] + re.escape(rest)


def _when(source: Json, value: Json, chain: str) -> Json:
    return {"predicate": {"single_predicate": {"input": source, "value_match": value}}, "on_match": _to(chain)}


def _to(chain: str) -> Json:
    value = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": chain}
    return {"action": {"name": chain, "typed_config": value}}


def _input(kind: str) -> Json:
    return {"name": kind, "typed_config": {"@type": f"{_INPUTS}{kind}"}}
