"""Tree + data → text, with Go's scoping: dot, `$` for the root, block-scoped variables, templates by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from mycel.cli.chart.functions import FUNCTIONS, text_of, truth
from mycel.cli.chart.template import (
    Branch,
    Call,
    Expression,
    Field,
    Literal,
    Node,
    Print,
    Template,
    TemplateError,
    Text,
)

_DEPTH = 50  # templates that include each other without end


class Renderer:
    """Runs templates that can include what any of them defines."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self._templates = {template.name: template for template in templates}
        self._defined = {
            name: (template.name, body)
            for template in self._templates.values()
            for name, body in template.defined.items()
        }

    def render(self, name: str, data: Mapping[str, Any]) -> str:
        """Run one file. Raises TemplateError."""
        return _Run(self._defined, name, data).nodes(self._templates[name].body, data, {"$": data})


class _Run:
    def __init__(
        self, defined: Mapping[str, tuple[str, tuple[Node, ...]]], file: str, data: Any, depth: int = 0
    ) -> None:
        self._defined = defined
        self._file = file
        self._depth = depth
        self._data = data

    def nodes(self, nodes: Iterable[Node], dot: Any, variables: dict[str, Any]) -> str:
        """Run a body; the variables it declares end with it. Nothing is reassigned, so a copy will do."""
        written: list[str] = []
        scope = dict(variables)
        for node in nodes:
            if isinstance(node, Text):
                written.append(node.text)
            elif isinstance(node, Print):
                value = self._value(node.value, dot, scope, node.line)
                if node.variable:
                    scope[node.variable] = value
                else:
                    written.append(self._print(value, node.line))
            else:
                written.append(self._branch(node, dot, scope))
        return "".join(written)

    def _branch(self, node: Branch, dot: Any, scope: dict[str, Any]) -> str:
        value = self._value(node.value, dot, scope, node.line)
        if not truth(value):
            return self.nodes(node.otherwise, dot, scope)
        if node.kind == "if":
            return self.nodes(node.body, dot, scope)
        if node.kind == "with":
            return self.nodes(node.body, value, scope)
        pairs: list[tuple[Any, Any]]
        if isinstance(value, dict):
            pairs = sorted(cast("dict[str, Any]", value).items())
        elif isinstance(value, list):
            pairs = list(enumerate(cast("list[Any]", value)))
        else:
            raise self._error(node.line, f"range needs a list or a map, not {type(value).__name__}")
        written: list[str] = []
        for key, item in pairs:
            bound = (item,) if len(node.variables) == 1 else (key, item)
            inner = dict(scope)
            inner.update(zip(node.variables, bound, strict=False))
            written.append(self.nodes(node.body, item, inner))
        return "".join(written)

    def _value(self, expression: Expression, dot: Any, scope: dict[str, Any], line: int) -> Any:
        if isinstance(expression, Literal):
            return expression.value
        if isinstance(expression, Field):
            return self._field(expression, dot, scope, line)
        return self._call(expression, dot, scope)

    def _field(self, field: Field, dot: Any, scope: dict[str, Any], line: int) -> Any:
        if field.variable and field.variable not in scope:
            raise self._error(line, f"{field.variable} is not defined")
        value = scope[field.variable] if field.variable else dot
        for index, name in enumerate(field.path):
            if not isinstance(value, Mapping):
                before = ".".join(("", *field.path[:index]))
                raise self._error(line, f"{field.variable}{before} has no field {name}: it is {value!r}")
            value = cast("Mapping[str, Any]", value).get(name)
        return value

    def _call(self, call: Call, dot: Any, scope: dict[str, Any]) -> Any:
        arguments = [self._value(argument, dot, scope, call.line) for argument in call.arguments]
        if call.function == "include":
            return self._include(call, arguments)
        function = FUNCTIONS.get(call.function)
        if function is None:
            raise self._error(call.line, f"there is no function {call.function}")
        try:
            return function(*arguments)
        except (TypeError, ValueError, AttributeError, IndexError) as exc:
            raise self._error(call.line, f"{call.function}: {exc}") from exc

    def _include(self, call: Call, arguments: list[Any]) -> str:
        if len(arguments) != 2:
            raise self._error(call.line, "include needs a name and a value")
        name, dot = arguments
        if name not in self._defined:
            raise self._error(call.line, f"no template defines {name}")
        if self._depth > _DEPTH:
            raise self._error(call.line, f"{name} includes itself without end")
        file, body = self._defined[name]
        return _Run(self._defined, file, dot, self._depth + 1).nodes(body, dot, {"$": dot})

    def _print(self, value: Any, line: int) -> str:
        try:
            return text_of(value)
        except TypeError as exc:
            raise self._error(line, str(exc)) from exc

    def _error(self, line: int, message: str) -> TemplateError:
        return TemplateError(f"{self._file}:{line}: {message}")
