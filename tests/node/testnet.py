#!/usr/bin/python3 -IS
"""A small CNI plugin for tests: a bridge per node, one address per pod from the configured subnet. Standard
library only.
"""

import json
import os
import pathlib
import subprocess
import sys

STATE = "/var/lib/cni/testnet"


def ip(*words, netns=None, check=True):
    command = ["nsenter", f"--net={netns}"] if netns else []
    return subprocess.run([*command, "ip", *words], check=check, capture_output=True, text=True)


def address(container, subnet):
    """The container's address; given out once, kept in a file of the container's name."""
    pathlib.Path(STATE).mkdir(parents=True, exist_ok=True)
    base = subnet.rpartition(".")[0]
    for number in range(10, 250):
        path = f"{STATE}/{base}.{number}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            continue
        os.write(fd, container.encode())
        os.close(fd)
        return f"{base}.{number}"
    raise SystemExit("no address left")


def add(config, container, netns, name):
    base = config["subnet"].rpartition(".")[0]
    if ip("link", "show", "tn0", check=False).returncode != 0:
        ip("link", "add", "tn0", "type", "bridge", check=False)
        ip("address", "add", f"{base}.1/24", "dev", "tn0", check=False)
        ip("link", "set", "tn0", "up")
    given = address(container, config["subnet"])
    host = "tn" + container[:10]
    ip("link", "add", host, "type", "veth", "peer", "name", name, "netns", netns)
    ip("link", "set", host, "master", "tn0", "up")
    ip("address", "add", f"{given}/24", "dev", name, netns=netns)
    ip("link", "set", name, "up", netns=netns)
    ip("route", "add", "default", "via", f"{base}.1", netns=netns)
    return {
        "cniVersion": config["cniVersion"],
        "interfaces": [{"name": name, "sandbox": netns}],
        "ips": [{"address": f"{given}/24", "gateway": f"{base}.1", "interface": 0}],
    }


def delete(container):
    """Give the address back. The cable goes with the pod's namespace, for many pods at once."""
    for path in pathlib.Path(STATE).glob("*.*"):
        try:
            if path.read_text() == container:
                path.unlink()
        except FileNotFoundError:
            continue  # another pod's DEL at the same time


def main():
    verb = os.environ["CNI_COMMAND"]
    if verb == "VERSION":
        print(json.dumps({"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}))
        return
    config = json.load(sys.stdin)
    container = os.environ["CNI_CONTAINERID"]
    if verb == "ADD":
        print(json.dumps(add(config, container, os.environ["CNI_NETNS"], os.environ["CNI_IFNAME"])))
    elif verb == "DEL":
        delete(container)


if __name__ == "__main__":
    main()
