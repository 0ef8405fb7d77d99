"""The plugin's own part: environment, results, what it does without an agent."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mycel.cni import plugin

ENVIRONMENT = {
    "CNI_CONTAINERID": "c1",
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/run/netns/x",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u",
}
MADE = {
    "host-interface": "lxc1",
    "host-mac": "02:00:00:00:00:02",
    "mac": "02:00:00:00:00:01",
    "addresses": [{"address": "10.0.0.5/32", "gateway": "10.0.0.1"}],
}


def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, **config: Any
) -> tuple[int, Any]:
    """Run it as a process would: exit code and result."""
    for name, value in {**ENVIRONMENT, "CNI_COMMAND": command}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"cniVersion": "1.0.0", **config})))
    code = plugin.main()
    printed = capsys.readouterr().out
    return code, json.loads(printed) if printed else None


def test_result_of_an_add() -> None:
    """Both ends, the address of the pod's end, a route to the gateway before the one through it."""
    request = plugin.request_of(ENVIRONMENT)
    assert (request["namespace"], request["pod"], request["uid"]) == ("shop", "web", "u")
    result = plugin.result_of(MADE, request, "1.0.0")
    assert result["ips"] == [{"address": "10.0.0.5/32", "gateway": "10.0.0.1", "interface": 1}]
    assert result["interfaces"][1] == {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"}
    assert result["routes"] == [{"dst": "10.0.0.1/32"}, {"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]
    assert plugin.result_of(MADE, request, "0.3.1")["ips"][0]["version"] == "4"


def test_del_without_an_agent_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It succeeds, and the agent finds it later."""
    assert typed(monkeypatch, capsys, "DEL", **{"run-dir": str(tmp_path)}) == (0, None)
    (kept,) = (tmp_path / "state" / "deletes").iterdir()
    assert json.loads(kept.read_text()) == {"container-id": "c1", "interface": "eth0"}


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_others_fail_without_an_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Code 11: try again later."""
    code, said = typed(monkeypatch, capsys, command, **{"run-dir": str(tmp_path)})
    assert (code, said["code"], said["cniVersion"]) == (1, 11, "1.0.0")
    assert "cannot be reached" in said["msg"]


@pytest.mark.parametrize(
    ("command", "config", "code"),
    [("FLY", {}, 4), ("ADD", {"cniVersion": "9.0.0"}, 1), ("STATUS", {"run-dir": "/nowhere"}, 50)],
)
def test_bad_calls_are_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    config: dict[str, str],
    code: int,
) -> None:
    """With the specification's codes."""
    ended, said = typed(monkeypatch, capsys, command, **config)
    assert (ended, said["code"]) == (1, code)


def test_bad_configuration(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not JSON is code 7."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("{"))
    assert plugin.main() == 1
    assert json.loads(capsys.readouterr().out)["code"] == 7


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every version since 0.3."""
    code, said = typed(monkeypatch, capsys, "VERSION")
    assert (code, said["supportedVersions"]) == (0, plugin.VERSIONS)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": [1, True, None, '\u00fc\n"', {"b": []}]},
        {"cni.dev/valid-attachments": [{"containerID": "c", "ifname": "e"}]},
    ],
)
def test_its_json_is_json(value: dict[str, Any]) -> None:
    """Both ways, as the standard library has it."""
    assert json.loads(plugin.write_json(value)) == value
    assert plugin.read_json(" " + json.dumps(value, ensure_ascii=False) + "\n") == value


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": }', "{} {}", "nonsense"])
def test_what_is_not_one_object_is_refused(text: str) -> None:
    """By ValueError, whatever is wrong."""
    with pytest.raises(ValueError, match=r"\w"):
        plugin.read_json(text)
