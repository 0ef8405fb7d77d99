"""Fails when the documentation and the program disagree: verbs, options, settings, drop reasons, commands, folders.

What exists must be written down, and what is written down as a command or a folder must exist. Run: make docs-check
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]

import gen_cli_doc  # noqa: E402

from mycel.abi import enums  # noqa: E402
from mycel.cli.chart.load import Release, load_chart  # noqa: E402
from mycel.cli.main import cli  # noqa: E402
from mycel.kit.deploy import chart_dir  # noqa: E402


def main() -> int:
    """Print every disagreement."""
    problems = [*verbs(), *settings(), *drop_reasons(), *commands(), *folders(), *links()]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def verbs() -> Iterator[str]:
    """docs/cli.md is what the command line says of itself."""
    if gen_cli_doc.document() != _text("docs/cli.md"):
        yield "docs/cli.md is stale: run make gen"


def settings() -> Iterator[str]:
    """Each value of the chart and each key of the ConfigMap is in docs/settings.md."""
    page = _text("docs/settings.md")
    chart = load_chart(chart_dir())
    for path in _leaves(chart.defaults):
        if f"`{path}`" not in page:
            yield f"docs/settings.md does not mention `{path}`"
    rendered = chart.render(chart.values({}), Release("cilium", "kube-system"))
    config = next(item for item in rendered.objects if item["kind"] == "ConfigMap")
    for key in config["data"]:
        if f"`{key}`" not in page:
            yield f"docs/settings.md does not mention the key `{key}`"
    for path in re.findall(r"^\| `([A-Za-z][\w.]*)` \|", page, re.M):
        if path not in set(_leaves(chart.defaults)) and path not in config["data"]:
            yield f"docs/settings.md explains `{path}`, which does not exist"


def drop_reasons() -> Iterator[str]:
    """Each drop reason of the kernel programs is in docs/drop-reasons.md with its number, and no other."""
    page = _text("docs/drop-reasons.md")
    documented = {(name, int(number)) for number, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.M)}
    real = {(reason.name, int(reason)) for reason in enums.DropReason}
    for name, number in sorted(real - documented):
        yield f"docs/drop-reasons.md lacks {name} = {number}"
    for name, number in sorted(documented - real):
        yield f"docs/drop-reasons.md explains {name} = {number}, which does not exist"


def commands() -> Iterator[str]:
    """Each command of ours in README and CONTRIBUTING exists."""
    for page in ("README.md", "CONTRIBUTING.md", "docs/install.md"):
        for line in _shell_lines(_text(page)):
            words = shlex.split(line, comments=True)
            if words and words[0] == "sudo":
                words = words[1:]
            if not words:
                continue
            if words[0].startswith(("scripts/", "tools/")) and not (ROOT / words[0]).is_file():
                yield f"{page} runs {words[0]}, which does not exist"
            if words[0] == "make" and len(words) > 1 and not re.search(rf"^{words[1]}:", _text("Makefile"), re.M):
                yield f"{page} runs make {words[1]}, which does not exist"
            if words[0] == "mycel":
                yield from _check_command(page, words[1:])
            for word in words[1:]:
                if word.startswith(("examples/", "tests/", "deploy/")) and not (ROOT / word).exists():
                    yield f"{page} names {word}, which does not exist"


def _check_command(page: str, words: list[str]) -> Iterator[str]:
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            yield f"{page}: mycel {' '.join(words)}: there is no {rest[0]}"
            return
        command, rest = found, rest[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known | {"--help"}:
            yield f"{page}: mycel {' '.join(words)}: there is no option {option}"


def folders() -> Iterator[str]:
    """Folders and files that ARCHITECTURE.md's tree names exist, and every room is named there."""
    page = _text("ARCHITECTURE.md")
    for path in re.findall(r"^\| `([\w./*-]+/)` \|", page, re.M):
        if not (ROOT / path).is_dir():
            yield f"ARCHITECTURE.md names {path}, which does not exist"
    for room in sorted((ROOT / "src" / "mycel").iterdir()):
        if (room / "__init__.py").exists() and f"`src/mycel/{room.name}/`" not in page:
            yield f"ARCHITECTURE.md does not name src/mycel/{room.name}/"


def links() -> Iterator[str]:
    """Relative links lead somewhere."""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                yield f"{page.relative_to(ROOT)} links to {target}, which does not exist"


def _leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in {"updateStrategy", "nodeSelector"}:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def _shell_lines(page: str) -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", page, re.S):
        yield from block.replace("\\\n", " ").splitlines()


def _text(name: str) -> str:
    path = ROOT / name
    return path.read_text() if path.is_file() else ""


if __name__ == "__main__":
    raise SystemExit(main())
