"""`mycel hubble observe` without a server: flags, files and forms."""

import json
from pathlib import Path

import pytest

from mycel.cli.main import run
from mycel.observe.protojson import to_json
from tests.unit.observe.test_printer import SYN, response


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Three flows, jsonpb, with a line that is none."""
    flows = [
        response(),
        response(verdict="DROPPED", event_type={"type": 1, "sub_type": 133}, is_reply=None),
        response(l4=SYN, Summary="TCP Flags: SYN"),
    ]
    path = tmp_path / "flows.json"
    path.write_text("\n".join([to_json(flows[0]), "not json", *map(to_json, flows[1:])]) + "\n")
    return str(path)


def observe(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    """Exit code, lines on standard output, standard error."""
    code = run(["hubble", "observe", *words])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def test_file(capsys: pytest.CaptureFixture[str], file: str) -> None:
    """All flows of a file in its order; what is no flow is said and left out."""
    code, lines, error = observe(capsys, "--input-file", file)
    assert (code, len(lines)) == (0, 3)
    assert "a line that is no flow" in error


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--last", "1"], ["SYN"]),
        (["--first", "1"], ["to-overlay FORWARDED (UDP)"]),
        (["--verdict", "DROPPED"], ["DROPPED"]),
        (["--not", "--verdict", "DROPPED", "--protocol", "udp"], ["to-overlay FORWARDED (UDP)"]),
        (["--verdict", "DROPPED", "--not", "--protocol", "udp"], []),
        (["flows", "-t", "trace", "--to-port", "8080"], ["SYN"]),
        (["-n", "kube-system", "--protocol", "tcp"], ["SYN"]),
        (["--allowlist", '{"source_port":["40214"]}'], ["SYN"]),
        (["--since", "2025-12-19", "--all"], []),
    ],
)
def test_filters(capsys: pytest.CaptureFixture[str], file: str, words: list[str], found: list[str]) -> None:
    """Filters in the order they are typed."""
    code, lines, _ = observe(capsys, *words, "--input-file", file)
    assert code == 0
    assert len(found) == len(lines)
    assert all(part in line for part, line in zip(found, lines, strict=True))


def test_json(capsys: pytest.CaptureFixture[str], file: str) -> None:
    """Output that can be read back as input."""
    _, lines, _ = observe(capsys, "--input-file", file, "-o", "json")
    assert [json.loads(line)["flow"]["verdict"] for line in lines] == ["FORWARDED", "DROPPED", "FORWARDED"]


def test_raw_filters(capsys: pytest.CaptureFixture[str]) -> None:
    """The filters as YAML, and no question to any server."""
    code, lines, _ = observe(capsys, "--print-raw-filters", "--from-pod", "a/b", "--not", "-4", "-t", "l7")
    assert code == 0
    assert lines == [
        "allowlist:",
        """    - '{"source_pod":["a/b"],"event_type":[{"type":129}]}'""",
        "denylist:",
        """    - '{"ip_version":["IPv4"]}'""",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--first", "1", "--last", "1"],
        ["--first", "1", "-f"],
        ["--all", "--last", "2"],
        ["-o", "xml"],
        ["-o", "table", "-f"],
        ["--since", "tomorrow"],
        ["--pod", "a", "--from-pod", "b"],
        ["--allowlist", "{"],
        ["--tls-client-cert-file", "a"],
        ["--server", "http://host:1"],
    ],
)
def test_wrong_command_lines(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """Exit code 2 and one sentence."""
    code, lines, error = observe(capsys, *words)
    assert (code, lines) == (2, [])
    assert error


def test_nobody_listens(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 1 and a next step."""
    code, _, error = observe(capsys, "--server", f"unix://{tmp_path}/none")
    assert code == 1
    assert "Is a Hubble server listening there?" in error
