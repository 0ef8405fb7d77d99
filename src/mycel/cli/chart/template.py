"""Text of a template → tree: the part of Go's text/template the chart uses, with its rules for white space.

Actions: pipelines, `if`/`else if`/`else`, `with`, `range` (also `range $k, $v :=`), `define`, variables,
comments, trim markers. Everything else raises TemplateError with file and line.
Grammar: https://pkg.go.dev/text/template (Actions, Arguments, Pipelines).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple


class TemplateError(Exception):
    """A template cannot be parsed or run; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Text:
    """Copied as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, number, boolean or nil."""

    value: str | int | bool | None


@dataclass(frozen=True, slots=True)
class Field:
    """`.a.b` (variable is empty), `$.a.b` (variable `$`) or `$x.a.b`."""

    variable: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function with arguments; pipes add theirs at the end."""

    function: str
    arguments: tuple[Expression, ...]
    line: int


Expression = Literal | Field | Call


@dataclass(frozen=True, slots=True)
class Print:
    """`{{ pipeline }}`, or with `variable` set `{{ $x := pipeline }}`."""

    value: Expression
    line: int
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """`if`, `with` and `range`: they differ in what they do with the value."""

    kind: str
    value: Expression
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    line: int
    variables: tuple[str, ...] = ()


Node = Text | Print | Branch


@dataclass(slots=True)
class Template:
    """One parsed file: its own nodes and the templates it defines by name."""

    name: str
    body: tuple[Node, ...] = ()
    defined: dict[str, tuple[Node, ...]] = field(default_factory=dict[str, "tuple[Node, ...]"])


class _Piece(NamedTuple):
    """Text, or the inside of an action."""

    is_action: bool
    text: str
    line: int


_ACTION = re.compile(
    r"""\{\{(?P<left>-\s)?(?P<inside>(?:/\*.*?\*/|"(?:\\.|[^"\\])*"|`[^`]*`|[^{}"`])*?)(?P<right>\s-)?\}\}""",
    re.S,
)
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)
    | (?P<number>-?\d+)(?![\w.])
    | (?P<variable>\$\w*(?:\.\w+)*)
    | (?P<field>\.(?:\w+(?:\.\w+)*)?)
    | (?P<word>[A-Za-z]\w*)
    | (?P<sign>:=|\||\(|\)|,)
    )""",
    re.X,
)
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "nil": None}
_UNSUPPORTED = frozenset({"block", "template", "break", "continue"})


def parse(name: str, text: str) -> Template:
    """Parse one file. Raises TemplateError."""
    return _Parser(name, _pieces(name, text)).template()


def _pieces(name: str, text: str) -> list[_Piece]:
    pieces: list[_Piece] = []
    position, line, trim_next = 0, 1, False
    for match in _ACTION.finditer(text):
        before = text[position : match.start()]
        _refuse_braces(name, before, line)
        if trim_next:
            before = before.lstrip()
        if match["left"]:
            before = before.rstrip()
        start_line = line + text.count("\n", position, match.start())
        pieces.append(_Piece(False, before, line))
        inside = match["inside"].strip()
        if not (inside.startswith("/*") and inside.endswith("*/")):
            pieces.append(_Piece(True, inside, start_line))
        line = start_line + match[0].count("\n")
        position, trim_next = match.end(), bool(match["right"])
    rest = text[position:]
    _refuse_braces(name, rest, line)
    pieces.append(_Piece(False, rest.lstrip() if trim_next else rest, line))
    return pieces


def _refuse_braces(name: str, text: str, line: int) -> None:
    at = text.find("{{")
    if at >= 0:
        raise TemplateError(f"{name}:{line + text.count(chr(10), 0, at)}: this action cannot be read")


class _Parser:
    """Recursive descent over pieces, and over the tokens of one action."""

    def __init__(self, name: str, pieces: list[_Piece]) -> None:
        self._name = name
        self._pieces = pieces
        self._next = 0
        self._defined: dict[str, tuple[Node, ...]] = {}
        self._line = 1
        self._tokens: list[tuple[str, str]] = []

    def template(self) -> Template:
        body, end = self._nodes(())
        if end:
            raise self._error(f"unexpected {end}")
        return Template(self._name, body, self._defined)

    def _nodes(self, ends: tuple[str, ...]) -> tuple[tuple[Node, ...], str]:
        """Nodes up to an action that begins with one of `ends`; which, or empty at the end of the file."""
        nodes: list[Node] = []
        while self._next < len(self._pieces):
            piece = self._pieces[self._next]
            self._next += 1
            self._line = piece.line
            if not piece.is_action:
                if piece.text:
                    nodes.append(Text(piece.text))
                continue
            word, _, rest = piece.text.partition(" ")
            if word in ends:
                return tuple(nodes), piece.text
            if word in {"end", "else"}:
                raise self._error(f"{word} without if, with or range")
            if word in _UNSUPPORTED:
                raise self._error(f"{word} is not supported")
            if word in {"if", "with", "range"}:
                nodes.append(self._branch(word, rest))
            elif word == "define":
                self._define(rest.strip().strip('"`'))
            else:
                nodes.append(self._print(piece.text))
        if ends:
            raise self._error("end is missing")
        return tuple(nodes), ""

    def _define(self, name: str) -> None:
        self._defined[name], _ = self._nodes(("end",))

    def _branch(self, kind: str, condition: str) -> Branch:
        line = self._line
        variables, value = self._binding(condition)
        if kind != "range" and variables:
            raise self._error(f"variables are supported in range only, not in {kind}")
        body, end = self._nodes(("end", "else"))
        otherwise: tuple[Node, ...] = ()
        if end.startswith("else "):
            word, _, rest = end.removeprefix("else ").strip().partition(" ")
            if word != "if" or kind != "if":
                raise self._error(f"{end} is not supported")
            otherwise = (self._branch("if", rest),)
        elif end == "else":
            otherwise, _ = self._nodes(("end",))
        return Branch(kind, value, body, otherwise, line, variables)

    def _print(self, text: str) -> Print:
        line = self._line
        self._tokenize(text)
        kinds = [token for _, token in self._tokens[:2]]
        if len(kinds) == 2 and kinds[0].startswith("$") and kinds[1] == ":=":
            variable = self._tokens.pop(0)[1]
            self._tokens.pop(0)
            return Print(self._pipeline_to_end(), line, variable)
        return Print(self._pipeline_to_end(), line)

    def _binding(self, text: str) -> tuple[tuple[str, ...], Expression]:
        """`$k, $v := pipeline`, `$v := pipeline` or `pipeline`."""
        names: list[str] = []
        if ":=" in text:
            left, _, text = text.partition(":=")
            names = [name.strip() for name in left.split(",")]
            if not 1 <= len(names) <= 2 or not all(re.fullmatch(r"\$\w+", name) for name in names):
                raise self._error(f"cannot assign to {left.strip()}")
        self._tokenize(text)
        return tuple(names), self._pipeline_to_end()

    def _tokenize(self, text: str) -> None:
        self._tokens = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._error(f"cannot read {text[position:].strip()!r}")
            self._tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
            position = match.end()

    def _pipeline_to_end(self) -> Expression:
        value = self._pipeline()
        if self._tokens:
            raise self._error(f"unexpected {self._tokens[0][1]!r}")
        return value

    def _pipeline(self) -> Expression:
        value = self._command()
        while self._tokens and self._tokens[0][1] == "|":
            self._tokens.pop(0)
            command = self._command()
            if not isinstance(command, Call):
                raise self._error("only a function can follow |")
            value = Call(command.function, (*command.arguments, value), command.line)
        return value

    def _command(self) -> Expression:
        """A function with its operands, or one operand."""
        if self._tokens and self._tokens[0][0] == "word" and self._tokens[0][1] not in _CONSTANTS:
            function = self._tokens.pop(0)[1]
            arguments: list[Expression] = []
            while self._tokens and self._tokens[0][1] not in {"|", ")"}:
                arguments.append(self._operand())
            return Call(function, tuple(arguments), self._line)
        return self._operand()

    def _operand(self) -> Expression:
        if not self._tokens:
            raise self._error("a value is missing")
        kind, token = self._tokens.pop(0)
        match kind:
            case "string":
                if token[0] == "`":
                    return Literal(token[1:-1])
                return Literal(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), token[1:-1]))
            case "number":
                return Literal(int(token))
            case "variable":
                name, *path = token.split(".")
                return Field(name, tuple(path))
            case "field":
                return Field("", tuple(token[1:].split(".")) if len(token) > 1 else ())
            case "word" if token in _CONSTANTS:
                return Literal(_CONSTANTS[token])
            case "word":
                return Call(token, (), self._line)
            case _ if token == "(":  # noqa: S105 (a parenthesis)
                value = self._pipeline()
                if not self._tokens or self._tokens.pop(0)[1] != ")":
                    raise self._error(") is missing")
                return value
            case _:
                raise self._error(f"unexpected {token!r}")

    def _error(self, message: str) -> TemplateError:
        return TemplateError(f"{self._name}:{self._line}: {message}")
