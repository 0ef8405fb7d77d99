"""`cilium` inside of the agent's container: asks the agent's socket and prints, in the shapes stock tools read.

Standard library only, as it is started for every question. Nothing goes to stderr unless the command fails:
stock tools take any byte there as a failure.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from typing import Any, NoReturn

VERSION = "1.19.4"
_RUN_DIR = os.environ.get("CILIUM_RUN_DIR", "/var/run/cilium")
_LIMIT = 256 << 20
_TABLES = "endpoint ipcache lb announced nodes policy ct nat affinity socket_nat fragments metrics"
_USAGE = f"""usage: cilium COMMAND [-o json|jsonpath=TEMPLATE]

  status                     health of the agent and its parts
  endpoint list | get ID     pods of this node
  identity list | get ID     identities and their labels
  service list               frontends and backends
  bpf TABLE list             rows of the kernel's maps: {_TABLES}
  proxy list                 listeners of Envoy and the DNS proxy: why, and how far they are
  policy get                 rules and their revision
  fqdn cache list            names the DNS proxy learnt: addresses, seconds left, who asked
  fqdn names list            selectors of names in policies, and their identities
  metrics list               counters
  node list                  nodes of the cluster
  config                     settings in force
  encrypt status             encryption
  version                    version
"""


class Failed(Exception):
    """Printed on stderr; exit code 1."""


def ask(path: str) -> Any:
    """The agent's answer to a GET. Raises Failed."""
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with connection:
            connection.settimeout(30)
            connection.connect(f"{_RUN_DIR}/cilium.sock")
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n".encode())
            pieces: list[bytes] = []
            while (piece := connection.recv(1 << 16)) and sum(map(len, pieces[-1:])) < _LIMIT:
                pieces.append(piece)
    except OSError as exc:
        raise Failed(f"the agent does not answer at {_RUN_DIR}/cilium.sock: {exc}") from exc
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    try:
        status, answer = head.split(b" ", 2)[1], json.loads(body)
    except (IndexError, ValueError) as exc:
        raise Failed(f"the agent's answer to {path} is cut off") from exc
    if status != b"200":
        raise Failed(str(answer.get("message") or f"the agent answered {status.decode()}"))
    return answer


def jsonpath(value: Any, template: str) -> str:
    """kubectl's JSONPath, as far as tools use it: literal text and {.a.b[0]['c-d'][*].e}. Raises Failed."""
    out: list[str] = []
    for literal, expression in re.findall(r"([^{]+)|\{([^}]*)\}", template):
        if literal:
            out.append(literal)
            continue
        found = [value]
        for name, quoted, index in re.findall(r"\.([\w-]+)|\[['\"]([^'\"]+)['\"]\]|\[(\*|\d+)\]", expression):
            found = [inner for each in found for inner in _step(each, name or quoted, index)]
        out.append(" ".join(each if isinstance(each, str) else json.dumps(each) for each in found))
    return "".join(out)


def _step(value: Any, name: str, index: str) -> list[Any]:
    if index == "*":
        return list(value.values()) if isinstance(value, dict) else list(value or [])
    if index:
        return [value[int(index)]] if isinstance(value, list) and int(index) < len(value) else []
    if not isinstance(value, dict):
        return []
    for key, inner in value.items():  # field names of models are case-insensitive in jsonpath templates
        if key == name or key.lower() == name.lower():
            return [inner]
    return []


# ---- text for people


def columns(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A table with aligned columns."""
    cells = [head, *[tuple("" if each is None else str(each) for each in row) for row in rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def show_status(answer: Any) -> str:
    """`cilium status`."""
    lines = [
        f"{title + ':':24}{part['state']}" + (f"   {part['msg']}" if part.get("msg") else "")
        for title, part in (
            ("KVStore", answer["kvstore"]),
            ("Kubernetes", answer["kubernetes"]),
            ("Cilium", answer["cilium"]),
            ("Hubble", answer["hubble"]),
            ("Encryption", {"state": answer["encryption"]["mode"]}),
        )
    ]
    proxy = answer["proxy"]
    lines.append(
        f"{'Proxy Status:':24}OK, {proxy['total-redirects']} redirects, Envoy: {proxy['envoy-deployment-mode']}"
    )
    lines.append(f"{'KubeProxyReplacement:':24}{answer['kube-proxy-replacement']['mode']}")
    lines.append(f"{'IPAM:':24}{answer['ipam']['status']}")
    failing = [each for each in answer["controllers"] if each["status"]["consecutive-failure-count"]]
    lines.append(
        f"{'Controller Status:':24}{len(answer['controllers']) - len(failing)}/{len(answer['controllers'])} healthy"
    )
    lines += [f"  {each['name']}: {each['status']['last-failure-msg']}" for each in failing]
    return "\n".join(lines)


def show_endpoints(answer: Any) -> str:
    """`cilium endpoint list`."""
    rows = []
    for each in answer:
        status = each["status"]
        address = (status["networking"]["addressing"] or [{}])[0]
        name = status["external-identifiers"].get("pod-name", "")
        rows.append(
            (each["id"], status["identity"]["id"], name, address.get("ipv4"), address.get("ipv6"), status["state"])
        )
    return columns(("ENDPOINT", "IDENTITY", "POD", "IPv4", "IPv6", "STATUS"), rows)


def show_identities(answer: Any) -> str:
    """`cilium identity list`."""
    return columns(("ID", "LABELS"), [(each["id"], ",".join(each["labels"])) for each in answer])


def show_services(answer: Any) -> str:
    """`cilium service list`."""
    rows = []
    for each in answer:
        spec, front = each["spec"], each["spec"]["frontend-address"]
        targets = ", ".join(f"{one['ip']}:{one['port']} ({one['state']})" for one in spec["backend-addresses"])
        rows.append((spec["id"], f"{front['ip']}:{front['port']}/{front['protocol']}", spec["flags"]["type"], targets))
    return columns(("ID", "Frontend", "Service Type", "Backend"), rows)


def show_rows(answer: Any) -> str:
    """`cilium bpf … list`: what the kernel holds; a mark where the plan wants another."""
    rows = []
    for each in answer:
        key = " ".join(str(part) for part in each["key"].values())
        held = each["realized"]
        text = " ".join(f"{name}={part}" for name, part in held.items()) if held else "not in the kernel"
        differs = each["desired"] is not None and each["desired"] != held
        rows.append((key, text, "(plan differs)" if differs else ""))
    return columns(("KEY", "VALUE", ""), rows)


def show_metrics(answer: Any) -> str:
    """`cilium metrics list`."""
    rows = [
        (each["name"], " ".join(f'{name}="{value}"' for name, value in each["labels"].items()), each["value"])
        for each in answer
    ]
    return columns(("Metric", "Labels", "Value"), rows)


def show_nodes(answer: Any) -> str:
    """`cilium node list`."""
    rows = [(each["name"], ",".join(each["addresses"]), ",".join(each["pod-networks"])) for each in answer]
    return columns(("Name", "IPv4 Address", "Endpoint CIDR"), rows)


def show_plain(answer: Any) -> str:
    """Field by field."""
    if isinstance(answer, dict):
        return "\n".join(f"{name:32}{value}" for name, value in answer.items())
    return json.dumps(answer, indent=2)


def show_fqdn_cache(answer: Any) -> str:
    """`cilium fqdn cache list`."""
    return columns(
        ("Endpoint", "Pod", "FQDN", "TTL left", "IPs"),
        [
            (each["endpoint-id"], each["pod"] or each["source"], each["fqdn"], each["ttl-left"], ",".join(each["ips"]))
            for each in answer
        ],
    )


def show_fqdn_names(answer: Any) -> str:
    """`cilium fqdn names list`."""
    return columns(
        ("Identity", "Within", "Selectors"),
        [(each["id"], each["network"], " ".join(each["selectors"])) for each in answer["identities"]],
    )


def show_proxy(answer: Any) -> str:
    """`cilium proxy list`."""
    return columns(
        ("Port", "Proxy", "Direction", "Origin", "State", "Lets through"),
        [
            (
                each["port"],
                each["proxy"],
                each["direction"],
                ", ".join(each["origins"]),
                each["message"] or each["state"],
                "; ".join(each["rules"]),
            )
            for each in answer
        ],
    )


def show_policy(answer: Any) -> str:
    """`cilium policy get`."""
    return f"{answer['policy']}\nRevision: {answer['revision']}"


# ---- commands


def run(words: list[str], flags: dict[str, str]) -> tuple[Any, Any]:
    """(answer, how to show it to people). Raises Failed."""
    match words:
        case ["status"]:
            return ask("/v1/status"), show_status
        case ["endpoint", "list"]:
            return ask("/v1/endpoint"), show_endpoints
        case ["endpoint", "get", number]:
            return _chosen(ask("/v1/endpoint"), number, "endpoint"), show_plain
        case ["identity", "list"]:
            return ask("/v1/identity"), show_identities
        case ["identity", "get", number]:
            return _chosen(ask("/v1/identity"), number, "identity"), show_identities
        case ["service", "list"]:
            return ask("/v1/service"), show_services
        case ["bpf", name, "list" | "get", *_]:
            stock = {"tunnel": "nodes", "frag": "fragments"}
            return ask(f"/v1/bpf/{stock.get(name, name)}"), show_rows
        case ["fqdn", "cache", "list"]:
            return ask("/v1/fqdn/cache"), show_fqdn_cache
        case ["fqdn", "names", "list"]:
            return ask("/v1/fqdn/names"), show_fqdn_names
        case ["proxy", "list"]:
            return ask("/v1/proxy"), show_proxy
        case ["policy", "get"]:
            return ask("/v1/policy"), show_policy
        case ["metrics", "list"]:
            answer = ask("/v1/metrics.json")
            pattern = flags.get("match-pattern", "")
            return [each for each in answer if re.search(pattern, each["name"])], show_metrics
        case ["node", "list"]:
            return ask("/v1/node"), show_nodes
        case ["config", *_]:
            return ask("/v1/config"), show_plain
        case ["encrypt", "status"]:
            return {"mode": "Disabled", "msg": ""}, lambda answer: f"Encryption: {answer['mode']}"
        case ["version"]:
            daemon = {"Version": VERSION, "Revision": "mycel"}
            return {"Client": daemon, "Daemon": daemon}, lambda _: f"Client: {VERSION} mycel\nDaemon: {VERSION} mycel"
        case _:
            raise Failed(f"no such command: {' '.join(words)}\n{_USAGE}")


def _chosen(answer: Any, number: str, what: str) -> Any:
    found = [each for each in answer if str(each["id"]) == number]
    if not found:
        raise Failed(f"there is no {what} {number}")
    return found


_FLAGS = {"o": "output", "p": "match-pattern"}


def parse(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Words and flags: `-o json`, `-ojson`, `--output=json`; flags without a value are true.

    Raises Failed.
    """
    words: list[str] = []
    flags: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        each = rest.pop(0)
        if each.startswith("--"):
            name, has_value, value = each[2:].partition("=")
            if not has_value and name in _FLAGS.values():
                value = _value(name, rest)
            flags[name] = value or "true"
        elif each.startswith("-") and len(each) > 1:
            name = _FLAGS.get(each[1])
            if name is None:
                flags[each[1:]] = "true"
                continue
            flags[name] = each[2:].removeprefix("=") or _value(name, rest)
        else:
            words.append(each)
    return words, flags


def _value(name: str, rest: list[str]) -> str:
    if not rest:
        raise Failed(f"--{name} needs a value")
    return rest.pop(0)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_USAGE, end="")
        return 0
    try:
        words, flags = parse(arguments)
        answer, show = run(words, flags)
        output = flags.get("output", "")
        if output == "json":
            text = json.dumps(answer, indent=2)
        elif output.startswith("jsonpath="):
            text = jsonpath(answer, output.removeprefix("jsonpath="))
        elif output in ("", "text"):
            text = show(answer)
        else:
            raise Failed(f"output {output} is not known: json and jsonpath=TEMPLATE are")
    except Failed as exc:
        print(f"Error: {exc}", file=sys.stderr)
        return 1
    print(text)
    return 0


def exit_main() -> NoReturn:
    """For scripts."""
    sys.exit(main())


if __name__ == "__main__":
    exit_main()
