"""A node's datapath from nothing, under traffic, and adopted by the next agent."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mycel import abi
from mycel.datapath import features, pod_link, syscall
from mycel.datapath import netlink as nl
from mycel.datapath.errors import DatapathError
from mycel.datapath.link_watch import link_changes
from mycel.datapath.links import PROGRAM_HOOKS, AttachedLink, Hook
from mycel.datapath.node import Datapath, remove
from mycel.datapath.rtnetlink import Netlink, NetlinkRefused
from mycel.datapath.syscall import MapType
from tests.bpf.bed import NODE, POD, ROUTER, Bed
from tests.bpf.kernel import ROOT
from tests.bpf.lab import inside, run
from tests.bpf.rows import addr, endpoint, host_endpoint

pytestmark = pytest.mark.root


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    try:
        yield made
    finally:
        made.close()


def opened(bed: Bed, **changes: object) -> Datapath:
    """The node's datapath, as an agent in the node's namespace opens it."""
    with inside(bed.node):
        datapath = Datapath.open(dataclasses.replace(bed.settings, **changes))  # pyright: ignore[reportArgumentType]
    bed.at_end(datapath.close)
    return datapath


def by_pin(datapath: Datapath) -> dict[tuple[str, str], AttachedLink]:
    return {(each.program, each.target): each for each in datapath.attached()}


def add_pod(
    bed: Bed, datapath: Datapath, *, also: tuple[nl.Address, nl.Address, nl.Address] | None = None
) -> tuple[str, pod_link.PodLink]:
    """A pod as CNI makes it, with its rows; `also`: IPv6 addresses of pod, router and node. Namespace and pair."""
    pods, routers, nodes = ([POD], [ROUTER], [NODE]) if also is None else zip((POD, ROUTER, NODE), also, strict=True)
    name = bed.namespace("pod")
    namespace = pod_link.open_namespace(f"/run/netns/{name}")
    try:
        with inside(bed.node):
            link = pod_link.make_pair(
                datapath.netlink, pod_link.device_name("c1", "eth0"), namespace_fd=namespace, ifname="eth0", mtu=1450
            )
            datapath.attach_pod(link.ifindex)
            row = endpoint(
                ipv4=addr(str(POD)), ipv6=addr(str(also[0])) if also else bytes(16), ifindex=link.ifindex,
                identity=1234, endpoint_id=7, policy_revision=1,
                flags=abi.EndpointFlags.READY, mac=link.mac, node_mac=link.node_mac,
            )  # fmt: skip
            datapath.maps.interfaces.write({abi.InterfaceKey(link.ifindex): row})
            for each in (*nodes, *routers):
                datapath.maps.endpoints.write({abi.EndpointKey(addr(str(each))): host_endpoint()})
                node = abi.IpcacheValue(bytes(16), abi.ReservedIdentity.HOST, abi.IpcacheFlags.NODE)
                datapath.maps.ipcache.write({abi.IpcacheKey(addr(str(each))): node})
            cluster = abi.IpcacheValue(bytes(16), 1234, abi.IpcacheFlags.CLUSTER)
            for each in pods:
                datapath.maps.endpoints.write({abi.EndpointKey(addr(str(each))): row})
                datapath.maps.ipcache.write({abi.IpcacheKey(addr(str(each))): cluster})
            pod_link.set_up(datapath.netlink, link, ipv6=any(each.version == 6 for each in pods))
            pod_link.furnish(link, namespace_fd=namespace, ifname="eth0", addresses=pods, routers=routers)
    finally:
        os.close(namespace)
    return name, link


class Talk:
    """A TCP connection from node to pod that says something every few milliseconds and hears it back."""

    def __init__(self, bed: Bed, pod: str) -> None:
        with inside(pod):
            self._listener = socket.create_server((str(POD), 8080))
        with inside(bed.node):
            self._client = socket.create_connection((str(POD), 8080), timeout=60)
        self._server, _ = self._listener.accept()
        self._server.settimeout(60)
        self.said = 0
        self.problem: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._speak)
        self._thread.start()

    def _speak(self) -> None:
        try:
            while not self._over.wait(0.002):
                self._client.sendall(b"ping")
                assert self._server.recv(4) == b"ping"
                self._server.sendall(b"pong")
                assert self._client.recv(4) == b"pong"
                self.said += 1
        except Exception as problem:
            self.problem = problem

    def hears(self, more: int = 5) -> None:
        """Wait until some more rounds went through; fail with what the talker met."""
        goal, deadline_s = self.said + more, time.monotonic() + 60
        while self.said < goal and self.problem is None and time.monotonic() < deadline_s:
            time.sleep(0.002)
        assert self.problem is None
        assert self.said >= goal

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for each in (self._client, self._server, self._listener):
            each.close()


def test_a_node_from_nothing(bed: Bed) -> None:
    """Devices, routes, sysctls and hooks are as docs/datapath.md asks."""
    datapath = opened(bed)
    try:
        with inside(bed.node):
            names = {each.ifindex: each for each in nl.links(datapath.netlink)}
            host, net, vxlan = (names[each] for each in datapath.devices[:3])
            assert (host.name, net.name, vxlan.name) == ("cilium_host", "cilium_net", "cilium_vxlan")
            assert host.up and net.up and vxlan.up and host.noarp and net.noarp and host.peer == net.ifindex
            assert nl.addresses(datapath.netlink, host.ifindex) == [(host.ifindex, ipaddress.ip_interface(ROUTER))]
            route = datapath.routes.dump()[ipaddress.ip_network("10.244.0.0/16")]
            assert (route.ifindex, route.source, route.mtu, route.scope) == (host.ifindex, ROUTER, 1450, nl.SCOPE_LINK)
            assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
            assert Path("/proc/sys/net/ipv4/conf/cilium_host/rp_filter").read_text() == "0\n"
        eth0 = datapath.devices.underlays[0]
        expected = {("from_host", net.ifindex), ("from_overlay", vxlan.ifindex)}
        expected |= {("from_network", eth0.ifindex), ("to_network", eth0.ifindex)}
        devices = {(each.program, int(each.target)) for each in datapath.attached() if each.target != "cgroup"}
        assert devices == expected
        sockets = {each.program for each in datapath.attached() if each.target == "cgroup"}
        tcx = (Hook.TCX_INGRESS, Hook.TCX_EGRESS)
        assert sockets == {name for name, hook in PROGRAM_HOOKS.items() if hook not in tcx}
        assert (bed.settings.pins / "maps" / "mycel_ct").exists()
    finally:
        datapath.close()


def rules(bed: Bed, *family: str) -> list[str]:
    """The node's `ip rule`, in order."""
    lines = run("ip", "-n", bed.node, *family, "rule").splitlines()
    return [" ".join(each.split("\t")[0:2]).strip() for each in lines]


def test_what_proxies_send_is_routed_before_the_nodes_own_addresses(bed: Bed) -> None:
    """Also once an agent has started again; `remove` puts the local table first as it was."""
    before = rules(bed), rules(bed, "-6")
    node6, router6 = (ipaddress.IPv6Address(each) for each in ("fd31:91::2", "fd44:91::1"))
    run("ip", "-n", bed.node, "addr", "add", f"{node6}/64", "dev", "eth0", "nodad")
    services = (ipaddress.ip_network("10.96.0.0/16"),)
    for _ in range(2):
        datapath = opened(bed, ipv6=True, node_ipv6=node6, router_ipv6=router6, service_networks=services)
        for family in ((), ("-6",)):
            first = [each for each in rules(bed, *family) if int(each.split(":")[0]) < 30000]
            assert first == [
                "9: from all fwmark 0x200/0xf00 lookup 2004 proto 77",
                "10: from all fwmark 0x800/0xf8ff lookup 2005 proto 77",
                "100: from all lookup local proto 77",
            ]
        route = datapath.routes.dump()[services[0]]
        assert (route.ifindex, route.source, route.mtu) == (datapath.devices.host, ROUTER, datapath.devices.pod_mtu)
        for mark, device in (("0xa00", "cilium_host"), ("0x27110c00", "cilium_host"), ("0xca6c", "lo")):  # WireGuard's
            way = run("ip", "-n", bed.node, "route", "get", str(NODE), "mark", mark)
            assert f"dev {device} " in way
        datapath.close()
    with inside(bed.node), Netlink() as netlink:
        remove(bed.settings.pins, netlink=netlink)
    assert (rules(bed), rules(bed, "-6")) == before


def test_an_address_outside_is_what_programs_take_it_for(bed: Bed) -> None:
    """Its own row, then that of its names, then the longest prefix; else world."""
    datapath = opened(bed)
    maps = datapath.maps

    def value(identity: int) -> abi.IpcacheValue:
        return abi.IpcacheValue(bytes(16), identity, 0)

    network, longer = addr("198.51.100.0"), addr("198.51.100.128")
    maps.ipcache_lpm.write(
        {abi.IpcacheLpmKey(96 + 24, network): value(11), abi.IpcacheLpmKey(96 + 25, longer): value(12)}
    )
    maps.names.write({abi.NameKey(addr(f"198.51.100.{last}")): value(13) for last in (1, 2)})
    maps.ipcache.write({abi.IpcacheKey(addr("198.51.100.1")): value(14)})
    found = {last: maps.identity(addr(f"198.51.100.{last}")) for last in (1, 2, 3, 129)}
    assert found == {1: 14, 2: 13, 3: 11, 129: 12}
    assert maps.identity(addr("203.0.113.1")) == abi.ReservedIdentity.WORLD
    maps.ipcache_lpm.remove([*maps.ipcache_lpm.dump()])
    maps.names.remove([*maps.names.dump()])
    maps.ipcache.remove([abi.IpcacheKey(addr("198.51.100.1"))])
    datapath.close()


def test_the_next_agent_adopts_everything(bed: Bed) -> None:
    """Same links, same programs, same maps and rows; a knob's change swaps programs in the same links."""
    first = opened(bed)
    first.maps.nodes.write({abi.NodeKey(addr("172.31.91.9")): abi.NodeValue(9)})
    links = by_pin(first)
    first.close()
    second = opened(bed)
    assert second.opened.adopted_programs and second.opened.swapped_links == 0
    assert by_pin(second) == links
    assert second.dump("nodes") == {abi.NodeKey(addr("172.31.91.9")): abi.NodeValue(9)}
    second.close()
    third = opened(bed, masquerade=False, sizes={"mycel_nodes": 64})
    swapped = by_pin(third)
    assert {key: each.link_id for key, each in swapped.items()} == {key: each.link_id for key, each in links.items()}
    assert all(swapped[key].program_id != links[key].program_id for key in links)
    assert third.dump("nodes") == {abi.NodeKey(addr("172.31.91.9")): abi.NodeValue(9)}
    assert [each.name for each in (bed.settings.pins / "programs").iterdir()] == [third.opened.digest]
    third.close()


def test_traffic_lives_through_restarts_swaps_and_a_kill(bed: Bed) -> None:
    """One connection speaks all the while: agent closed, adopted, programs swapped, agent killed, adopted again."""
    datapath = opened(bed)
    pod, link = add_pod(bed, datapath)
    talk = Talk(bed, pod)
    try:
        talk.hears()
        datapath.close()
        talk.hears()
        for masquerade in (True, False):
            datapath = opened(bed, masquerade=masquerade)
            talk.hears()
            assert all(each.alive for each in datapath.attached())
            assert str(link.ifindex) in {each.target for each in datapath.attached()}
            datapath.close()
        datapath = opened(bed)
        links = {key: each.link_id for key, each in by_pin(datapath).items()}
        datapath.close()
        command = [sys.executable, "-m", "tests.bpf.bed", str(bed.bpffs.parent), bed.tag]
        agent = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"up\n"
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        agent.stdout.close()
        talk.hears()
        datapath = opened(bed)
        assert datapath.opened.adopted_programs
        assert {key: each.link_id for key, each in by_pin(datapath).items()} == links
        talk.hears()
        datapath.close()
    finally:
        talk.close()


def test_a_pod_reaches_its_node_and_leaves_nothing(bed: Bed) -> None:
    """What CNI makes works both ways; deleting the pair ends the links, and the next start drops their pins."""
    datapath = opened(bed)
    pod, link = add_pod(bed, datapath)
    run("ip", "netns", "exec", pod, "ping", "-c", "1", "-W", "2", str(ROUTER))
    run("ip", "netns", "exec", bed.node, "ping", "-c", "1", "-W", "2", str(POD))
    neighbours = run("ip", "-n", pod, "neigh", "show")
    assert f"{ROUTER} dev eth0 lladdr {link.node_mac.hex(':')} PERMANENT" in neighbours
    with inside(bed.node):
        assert list(pod_link.pod_devices(datapath.netlink)) == [link.name]
        assert pod_link.delete_pair(datapath.netlink, link.name)
        assert not pod_link.delete_pair(datapath.netlink, link.name)
    gone = [each for each in datapath.attached() if not each.alive]
    assert {each.program for each in gone} == {"from_pod", "to_pod"}
    datapath.detach_pod(link.ifindex)
    datapath.detach_pod(link.ifindex)
    assert all(each.alive for each in datapath.attached())
    datapath.close()


def test_a_kernel_without_tcx_gets_filters(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same traffic through clsact, and programs replaced in place by the next agent."""
    monkeypatch.setattr(features, "has_tcx", lambda: False)
    datapath = opened(bed)
    pod, link = add_pod(bed, datapath)
    assert {each.target for each in datapath.attached()} == {"cgroup"}
    shown = run("ip", "netns", "exec", bed.node, "tc", "filter", "show", "dev", link.name, "ingress")
    assert "from_pod" in shown and "direct-action" in shown
    run("ip", "netns", "exec", pod, "ping", "-c", "1", "-W", "2", str(ROUTER))
    datapath.close()
    datapath = opened(bed, masquerade=False)
    with inside(bed.node):
        datapath.attach_pod(link.ifindex)
    again = run("ip", "netns", "exec", bed.node, "tc", "filter", "show", "dev", link.name, "ingress")
    assert again.count("from_pod") == shown.count("from_pod") and again != shown
    run("ip", "netns", "exec", pod, "ping", "-c", "1", "-W", "2", str(ROUTER))
    datapath.detach_pod(link.ifindex)
    assert "from_pod" not in run("ip", "netns", "exec", bed.node, "tc", "filter", "show", "dev", link.name, "ingress")
    datapath.close()


async def test_changes_of_devices_are_told(bed: Bed) -> None:
    """A burst of changes wakes once; quiet namespaces wake nobody."""
    with inside(bed.node):
        stream = link_changes(gather_s=0.05)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await asyncio.sleep(0.05)
    assert not waiting.done()
    for number in range(3):
        run("ip", "-n", bed.node, "link", "add", f"d{number}", "type", "veth", "peer", "name", f"e{number}")
    await asyncio.wait_for(waiting, 60)
    await stream.aclose()


def test_both_families(bed: Bed) -> None:
    """With IPv6 switched on, node and pod get addresses, routes and neighbours of both, and both pass."""
    node6, router6, pod6 = (ipaddress.IPv6Address(each) for each in ("fd31:91::2", "fd44:91::1", "fd44:91::20"))
    run("ip", "-n", bed.node, "addr", "add", f"{node6}/64", "dev", "eth0", "nodad")
    networks = (*bed.settings.pod_networks, ipaddress.ip_network("fd44::/16"))
    datapath = opened(bed, ipv6=True, node_ipv6=node6, router_ipv6=router6, pod_networks=networks)
    assert datapath.devices.pod_mtu == 1500 - 70
    route = datapath.routes.dump()[networks[1]]
    assert (route.source, route.mtu) == (router6, 1430)
    pod, link = add_pod(bed, datapath, also=(pod6, router6, node6))
    for source, goal in ((pod, router6), (pod, ROUTER), (bed.node, pod6), (bed.node, POD)):
        run("ip", "netns", "exec", source, "ping", "-c", "1", "-W", "2", str(goal))
    assert f"{router6} dev eth0 lladdr {link.node_mac.hex(':')}" in run("ip", "-n", pod, "-6", "neigh", "show")
    datapath.close()


def test_no_program_no_traffic(bed: Bed) -> None:
    """A pair whose programs are taken off carries nothing, whoever deletes it when."""
    datapath = opened(bed)
    _, link = add_pod(bed, datapath)
    datapath.detach_pod(link.ifindex)
    with inside(bed.node):
        left = nl.link_by_index(datapath.netlink, link.ifindex)
    assert left is not None and not left.up
    datapath.close()


def test_a_start_that_was_cut_off_leaves_nothing(bed: Bed) -> None:
    """Pins that no program knows go with the next start; then everything is adopted again."""
    opened(bed).close()
    maps = bed.settings.pins / "maps"
    stray = syscall.map_create(MapType.HASH, key_size=4, value_size=4, max_entries=1)
    syscall.pin(stray, maps / "mycel_ct_new")
    os.close(stray)
    first = opened(bed)
    assert not first.opened.adopted_programs and first.opened.adopted_maps == len(list(maps.iterdir()))
    assert not (maps / "mycel_ct_new").exists()
    first.close()
    second = opened(bed)
    assert second.opened.adopted_programs
    second.close()


def test_removal_leaves_no_pin_and_no_device(bed: Bed) -> None:
    """After `remove`, bpffs and namespace are as they were."""
    opened(bed).close()
    with inside(bed.node), Netlink() as netlink:
        remove(bed.settings.pins, netlink=netlink)
        assert {each.name for each in nl.links(netlink)} == {"lo", "eth0", "wire"}
    assert not bed.settings.pins.exists()


def test_a_node_without_its_address_is_refused(bed: Bed) -> None:
    """The message names the address and what to check."""
    with pytest.raises(DatapathError, match=r"no device has the node's address 192\.0\.2\.7"):
        opened(bed, node_ipv4=ipaddress.IPv4Address("192.0.2.7"))


def test_a_folder_that_is_no_bpffs_is_refused(bed: Bed, tmp_path: Path) -> None:
    """Pins elsewhere would fail one by one; say it first."""
    with pytest.raises(DatapathError, match="is no bpffs: mount -t bpf"):
        opened(bed, pins=tmp_path / "mycel")


def test_routes_are_reconciled(bed: Bed) -> None:
    """Ours are listed, replaced and deleted; others are left alone; the kernel's refusal is a sentence."""
    with inside(bed.node), Netlink() as netlink:
        run("ip", "netns", "exec", bed.node, "ip", "route", "add", "198.51.100.0/24", "dev", "eth0")
        eth0 = nl.find_link(netlink, "eth0")
        assert eth0 is not None
        ours = nl.Route(ipaddress.ip_network("203.0.113.0/24"), eth0.ifindex, mtu=1400)
        nl.replace_route(netlink, ours)
        nl.replace_route(netlink, ours._replace(mtu=1300))
        assert nl.routes(netlink) == [ours._replace(mtu=1300)]
        with pytest.raises(NetlinkRefused, match=r"route 203\.0\.113\.0/24 through device 9999: No such device"):
            nl.replace_route(netlink, ours._replace(ifindex=9999))
        assert nl.delete_route(netlink, ours) and not nl.delete_route(netlink, ours)
    assert "198.51.100.0/24" in run("ip", "-n", bed.node, "route")


def test_pairs_go_together(bed: Bed) -> None:
    """Deleted as one group with those that were gone already; others stay, and no pin is left."""
    datapath = opened(bed)
    namespace_name = bed.namespace("pod")
    namespace = pod_link.open_namespace(f"/run/netns/{namespace_name}")
    try:
        with inside(bed.node):
            made = [
                pod_link.make_pair(
                    datapath.netlink,
                    pod_link.device_name(f"c{number}", "eth0"),
                    namespace_fd=namespace,
                    ifname=f"eth{number}",
                    mtu=1450,
                )
                for number in range(4)
            ]
            for link in made:
                datapath.attach_pod(link.ifindex)
            going = made[:3]
            assert pod_link.delete_pair(datapath.netlink, going[0].name)
            pod_link.delete_pairs(datapath.netlink, [link.name for link in going])
            for link in going:
                datapath.forget_pod(link.ifindex)
            assert list(pod_link.pod_devices(datapath.netlink)) == [made[3].name]
            pins = {target for _program, target in by_pin(datapath)}
            assert str(made[3].ifindex) in pins
            assert not pins & {str(link.ifindex) for link in going}
    finally:
        os.close(namespace)
