"""CNI plugin `cilium-cni`: hands ADD, DEL, CHECK, STATUS and GC to the node's agent over its socket.

Protocol: CNI 1.1 (environment, configuration on stdin, result on stdout). An agent that is away fails ADD
(the runtime tries again) and never DEL: the request is left in a folder for the agent's return, so that pods
can always be taken down.
"""

# ruff: noqa: PTH103, PTH104, PTH118 (pathlib would double the start-up time)
from __future__ import annotations

import os
import sys
from _json import encode_basestring_ascii, make_scanner
from _socket import AF_UNIX, SOCK_STREAM
from _socket import socket as Socket

# `json` and `socket` themselves import `re`, `enum` and `selectors`: twice the start-up of all the rest.

VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
RUN_DIR = "/var/run/cilium"
TIMEOUT_S = {"ADD": 90, "DEL": 20, "CHECK": 10, "STATUS": 5, "GC": 20}
TRY_AGAIN, BAD_ENVIRONMENT, BAD_CONFIG, NOT_AVAILABLE = 11, 4, 7, 50
LIMIT = 1 << 20


TYPE_CHECKING = False  # importing typing costs more than all the rest
if TYPE_CHECKING:
    from collections.abc import Mapping as _Mapping
    from typing import Any

    Object = dict[str, Any]
    Mapping = _Mapping[str, str]


class Failed(Exception):
    """What the runtime is told."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Reading:
    """How the scanner reads numbers and objects: as `json` does."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float
    memo: dict[str, str] = {}  # noqa: RUF012 (the scanner wants an attribute)


def read_json(text: str) -> Object:
    """A JSON object. Raises ValueError."""
    text = text.strip()
    try:
        value, end = make_scanner(_Reading)(text, 0)  # pyright: ignore[reportArgumentType]
    except StopIteration:
        raise ValueError("it is empty or cut off") from None
    if end != len(text) or not isinstance(value, dict):
        raise ValueError("it is not one object")
    return value


def write_json(value: object) -> str:
    """JSON of objects, lists, strings, whole numbers, booleans and None."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{write_json(name)}: {write_json(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write_json, value)) + "]"
    return "null" if value is None else str(value).lower()


def call(run_dir: str, method: str, path: str, body: Object, timeout_s: int) -> Object:
    """One request to the agent; its answer as JSON. OSError when it is away."""
    data = write_json(body).encode()
    connection = Socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(os.path.join(run_dir, "cilium.sock"))
        head = f"{method} {path} HTTP/1.0\r\nHost: agent\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = b""
        while len(answer) < LIMIT and (piece := connection.recv(65536)):
            answer += piece
    finally:
        connection.close()
    head, _, payload = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not status:
        raise OSError("the agent ended the connection without an answer")
    said = read_json(payload.decode()) if payload.strip() else {}
    if status[0] != b"200":
        message = said.get("message") or f"the agent answered {status[0].decode()}"
        raise Failed(TRY_AGAIN, message)
    return said


def request_of(environment: Mapping) -> Object:
    """The attachment the runtime means."""
    try:
        container, interface = environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]
    except KeyError as exc:
        raise Failed(BAD_ENVIRONMENT, f"{exc.args[0]} is not set") from None
    pairs = (pair.partition("=") for pair in environment.get("CNI_ARGS", "").split(";"))
    args = {name: value for name, _, value in pairs}
    return {
        "container-id": container,
        "interface": interface,
        "netns": environment.get("CNI_NETNS", ""),
        "namespace": args.get("K8S_POD_NAMESPACE", ""),
        "pod": args.get("K8S_POD_NAME", ""),
        "uid": args.get("K8S_POD_UID", ""),
    }


def result_of(made: Object, request: Object, version: str) -> Object:
    """CNI's result of an answer of the agent."""
    ips: list[Object] = []
    routes: list[Object] = []
    for each in made["addresses"]:
        entry = {"address": each["address"], "gateway": each["gateway"], "interface": 1}
        if version.startswith("0."):
            entry["version"] = "6" if ":" in each["gateway"] else "4"
        ips.append(entry)
        host = "/128" if ":" in each["gateway"] else "/32"
        routes.append({"dst": each["gateway"] + host})
        routes.append({"dst": "::/0" if ":" in each["gateway"] else "0.0.0.0/0", "gw": each["gateway"]})
    return {
        "cniVersion": version,
        "interfaces": [
            {"name": made["host-interface"], "mac": made["host-mac"]},
            {"name": request["interface"], "mac": made["mac"], "sandbox": request["netns"]},
        ],
        "ips": ips,
        "routes": routes,
        "dns": {},
    }


def leave_for_later(run_dir: str, request: Object) -> None:
    """Keep a DEL for the agent's return."""
    folder = os.path.join(run_dir, "state", "deletes")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    name = "".join(each if each.isalnum() else "_" for each in request["container-id"] + "-" + request["interface"])
    path = os.path.join(folder, name[-200:])
    with open(path + ".tmp", "w") as file:
        file.write(write_json({"container-id": request["container-id"], "interface": request["interface"]}))
    os.rename(path + ".tmp", path + ".json")


def run(command: str, config: Object, environment: Mapping) -> Object | None:
    """What to print, or None."""
    version = config.get("cniVersion") or "0.3.1"
    if command == "VERSION":
        return {"cniVersion": version, "supportedVersions": VERSIONS}
    if version not in VERSIONS:
        raise Failed(1, f"CNI version {version} is not supported: one of {', '.join(VERSIONS)} is")
    run_dir = config.get("run-dir") or RUN_DIR
    timeout_s = TIMEOUT_S.get(command)
    if timeout_s is None:
        raise Failed(BAD_ENVIRONMENT, f"CNI_COMMAND {command!r} is not known")
    if command in ("STATUS", "GC"):
        path = "/v1/attachments" if command == "GC" else "/v1/healthz"
        body = {"keep": config.get("cni.dev/valid-attachments") or []}
        try:
            call(run_dir, "PUT" if command == "GC" else "GET", path, body, timeout_s)
        except (OSError, Failed) as exc:
            raise Failed(NOT_AVAILABLE, f"the agent is not ready: {exc}") from None
        return None
    request = request_of(environment)
    if command == "ADD":
        if not request["netns"]:
            raise Failed(BAD_ENVIRONMENT, "CNI_NETNS is not set")
        if not request["pod"]:
            raise Failed(BAD_ENVIRONMENT, "CNI_ARGS names no pod (K8S_POD_NAME)")
        return result_of(call(run_dir, "POST", "/v1/endpoint", request, timeout_s), request, version)
    if command == "CHECK":
        call(run_dir, "POST", "/v1/endpoint/check", request, timeout_s)
        return None
    try:
        call(run_dir, "DELETE", "/v1/endpoint", request, timeout_s)
    except OSError:
        leave_for_later(run_dir, request)
    return None


def main() -> int:
    """Returns the exit code."""
    version = "0.3.1"
    try:
        try:
            config = read_json(sys.stdin.read(LIMIT) or "{}")
        except ValueError as exc:
            raise Failed(BAD_CONFIG, f"the configuration on stdin is not JSON: {exc}") from None
        version = config.get("cniVersion") or version
        result = run(os.environ.get("CNI_COMMAND", ""), config, os.environ)
    except Failed as exc:
        sys.stdout.write(write_json({"cniVersion": version, "code": exc.code, "msg": str(exc)}))
        return 1
    except OSError as exc:
        message = f"the agent of this node cannot be reached ({exc}): is its pod running?"
        sys.stdout.write(write_json({"cniVersion": version, "code": TRY_AGAIN, "msg": message}))
        return 1
    if result is not None:
        sys.stdout.write(write_json(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
