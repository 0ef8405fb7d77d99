"""The functions templates may call: those of Go, Sprig and Helm that the chart needs, with their results.

Sprig: https://masterminds.github.io/sprig/ · Helm: https://helm.sh/docs/chart_template_guide/function_list/
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import yaml

from mycel.cli.chart.values import merge


def truth(value: Any) -> bool:
    """Go's truth: false, 0, nil and anything empty are false."""
    return bool(value)


def text_of(value: Any) -> str:
    """How an action prints a value. Helm turns Go's `<no value>` into nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be printed: use toYaml")


def to_yaml(value: Any) -> str:
    """Keys sorted, lists as far in as their key, no line breaks in strings, no newline at the end."""
    dumped: str = yaml.dump(value, default_flow_style=False, width=2**31, allow_unicode=True)
    return dumped.removesuffix("...\n").rstrip("\n")


def from_yaml(text: str) -> Any:
    """Back from text to a map."""
    return yaml.load(text, Loader=yaml.CSafeLoader) or {}


def merge_overwrite(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Sprig changes `base` in place; nobody keeps it here, so a new map will do."""
    return merge(base, over)


def indent(spaces: int, text: str) -> str:
    """Every line moved to the right, also empty ones, as Sprig does."""
    return "\n".join(" " * spaces + line for line in text.split("\n"))


def quote(*values: Any) -> str:
    """In double quotes; nil values vanish."""
    return " ".join(json.dumps(text_of(value), ensure_ascii=False) for value in values if value is not None)


def equal(first: Any, *others: Any) -> bool:
    """Equal to any of the others; comparing different types is Go's error."""
    for other in others:
        if type(first) is not type(other):
            raise TypeError(f"eq compares {first!r} with {other!r}: incompatible types")
        if first == other:
            return True
    return False


def first_true(*values: Any) -> Any:
    """Go's `or`: the first true argument, else the last."""
    return next((value for value in values if truth(value)), values[-1])


def first_false(*values: Any) -> Any:
    """Go's `and`: the first false argument, else the last."""
    return next((value for value in values if not truth(value)), values[-1])


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": first_false,
    "b64enc": lambda text: base64.b64encode(str(text).encode()).decode(),
    "default": lambda fallback, value=None: value if truth(value) else fallback,
    "eq": equal,
    "fromYaml": from_yaml,
    "indent": indent,
    "join": lambda separator, items: separator.join(map(text_of, items)),
    "mergeOverwrite": merge_overwrite,
    "ne": lambda first, second: not equal(first, second),
    "nindent": lambda spaces, text: "\n" + indent(spaces, text),
    "not": lambda value: not truth(value),
    "or": first_true,
    "quote": quote,
    "toString": text_of,
    "toYaml": to_yaml,
}
