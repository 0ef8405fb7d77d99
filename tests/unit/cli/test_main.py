"""The command line: exit codes, errors as sentences, output for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mycel.cli import main
from mycel.cli.checkup import machine, tools
from mycel.cli.errors import BadInput, Failure
from mycel.cli.output import table_lines

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may find a real cluster."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.delenv("MYCEL_DEBUG", raising=False)


@pytest.mark.parametrize("name", sorted(main.VERBS))
def test_menu_and_verbs_agree(name: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    assert (command.help or "").splitlines()[0] == main.VERBS[name].help


def test_help_imports_no_verb() -> None:
    """The menu has to come at once: nothing heavy, and no verb, is imported for it."""
    code = (
        "import sys; from mycel.cli.main import run; code = run(['--help']);"
        "loaded = {'aiohttp', 'rich', 'yaml', 'msgspec', 'numpy', 'cryptography', 'asyncio'} & set(sys.modules);"
        "print(code, sorted(loaded), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "0 []"
    assert "install" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nope"], 2, "No such command 'nope'"),
        (["statsu"], 2, "Did you mean 'status'?"),
        (["status", "--nope"], 2, "No such option"),
        (["status"], 1, "no kubeconfig at"),
        (["install", "--kube-proxy-replacement", "maybe"], 2, "is not one of"),
        (["install", "--datapath-mode", "native"], 2, "--datapath-mode native is not supported"),
        (["install", "--config", "x"], 2, "--config x has no value"),
        (["install", "--wait-duration", "soon"], 2, "'soon' is not a duration"),
        (["install", "--values", "/nonexistent/values.yaml"], 2, "cannot read settings from"),
        (["config", "set", "a b", "c"], 2, "cannot be a setting's name"),
    ],
)
def test_errors(arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(arguments) == code
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--debug", "status"]) == 1
    assert "Traceback" in capsys.readouterr().err


def _raise(error: BaseException) -> click.Command:
    @click.command("raise")
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (Failure("it broke", hint="mend it"), 1, "mycel: it broke\n  mend it\n"),
        (BadInput("wrong"), 2, "mycel: wrong\n"),
        (ExceptionGroup("tasks", [Failure("inside", hint="h")]), 1, "mycel: inside\n  h\n"),
        (KeyboardInterrupt(), 130, "mycel: interrupted\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied: '/x'"),
        (RuntimeError("odd"), 1, "this should not have happened: RuntimeError: odd"),
    ],
)
def test_every_failure_is_a_sentence(
    error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: _raise(error))
    assert main.run(["raise"]) == code
    assert says in click.unstyle(capsys.readouterr().err)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["version", "--client", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"mycel": "0.1.0", "compatible with cilium": "1.19.4"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", shell]) == 0
    assert "_MYCEL_COMPLETE" in capsys.readouterr().out


def test_completing_a_verb() -> None:
    environment = os.environ | {"_MYCEL_COMPLETE": "bash_complete", "COMP_WORDS": "mycel inst", "COMP_CWORD": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", "from mycel.cli.main import main; main()"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.split() == ["plain,install"]


def test_table() -> None:
    assert list(table_lines(("A", "LONG"), [("x", None), (click.style("yy", fg="red"), 1)])) == [
        "A    LONG",
        "x    <none>",
        click.style("yy", fg="red") + "   1",
    ]


def test_colours_vanish_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["status"]) == 1
    assert "\x1b[" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bounding", "missing"),
    [
        ("000001ffffffffff", []),
        ("0000000000000000", sorted(machine._CAPABILITIES)),
        ("000001ffffdfffff", ["CAP_SYS_ADMIN"]),
    ],
)
def test_capabilities(bounding: str, missing: list[str]) -> None:
    assert machine.missing_capabilities(f"Name:\tx\nCapBnd:\t{bounding}\n") == missing


def test_listening_ports() -> None:
    lines = [
        "   0: 0100007F:192B 00000000:0000 0A 0 0",
        "   1: 0100007F:2710 0100007F:1000 01 0 0",
        "   2: 00000000:2118 00000000:0000 07 0 0",
    ]
    assert tools.listening(lines) == {0x192B, 0x2118}


def test_mounts() -> None:
    lines = ["cgroup2 /sys/fs/cgroup cgroup2 rw 0 0", "bpf /sys/fs/bpf bpf rw 0 0"]
    assert machine.mounted(lines, "cgroup2") == ["/sys/fs/cgroup"]


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file()))
def test_scripts_are_shell(script: str) -> None:
    assert subprocess.run(["sh", "-n", str(ROOT / "scripts" / script)], check=False).returncode == 0
