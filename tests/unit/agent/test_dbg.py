"""`cilium` inside of the container: words, templates, tables."""

from __future__ import annotations

import pytest

from mycel.agent import dbg

ANSWER = {
    "revision": 5,
    "Daemon": {"Version": "1.19.4"},
    "list": [{"id": 1, "tags": {"a-b": "x"}}, {"id": 2}],
}


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        ("{.revision}", "5"),
        ("'{.revision}'", "'5'"),
        ("{$.Daemon.Version}", "1.19.4"),
        ("{.list[0].tags['a-b']}", "x"),
        ("{.list[*].id}", "1 2"),
        ("{.list[7].id}", ""),
        ("{.nothing.here}", ""),
        ("{.list[1]}", '{"id": 2}'),
    ],
)
def test_jsonpath(template: str, printed: str) -> None:
    """What stock tools ask for."""
    assert dbg.jsonpath(ANSWER, template) == printed


@pytest.mark.parametrize(
    ("arguments", "words", "flags"),
    [
        (["status", "-o", "json"], ["status"], {"output": "json"}),
        (["service", "list", "--output=json"], ["service", "list"], {"output": "json"}),
        (["endpoint", "list", "-ojson"], ["endpoint", "list"], {"output": "json"}),
        (
            ["metrics", "list", "-p", "cilium_.*feature", "-o", "json"],
            ["metrics", "list"],
            {"match-pattern": "cilium_.*feature", "output": "json"},
        ),
        (["status", "--verbose", "--brief"], ["status"], {"verbose": "true", "brief": "true"}),
    ],
)
def test_arguments(arguments: list[str], words: list[str], flags: dict[str, str]) -> None:
    """Every way people and tools write flags."""
    assert dbg.parse(arguments) == (words, flags)


def test_a_failure_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, with exit code 1; nothing on stdout."""
    assert dbg.main(["endpoint", "fly"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: no such command: endpoint fly")


def test_version_needs_no_agent(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing goes to stderr."""
    assert dbg.main(["version", "-o", "jsonpath={$.Daemon.Version}"]) == 0
    assert capsys.readouterr() == ("1.19.4\n", "")


def test_columns_are_aligned() -> None:
    """Missing values are empty, lines have no trailing blanks."""
    assert dbg.columns(("ID", "NAME"), [(1, None), (22, "b")]) == "ID   NAME\n1\n22   b"
