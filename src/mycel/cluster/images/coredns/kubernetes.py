"""Names of services and pods: the rules of Kubernetes' DNS-based service discovery 1.1.0. Pure.

Within a zone (`cluster.local.`): `SVC.NS.svc`, `_PORT._PROTO.SVC.NS.svc`, `ENDPOINT.SVC.NS.svc` of headless services,
`IP-WITH-DASHES.NS.pod`; and PTR for cluster IPs and for endpoints of headless services. A name that exists without the
type asked for is NODATA, any other NXDOMAIN, both with the zone's SOA.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from mycel.cluster.images.coredns.answer import Answer
from mycel.cluster.images.coredns.config import Kubernetes, within
from mycel.cluster.images.coredns.directory import Directory, Endpoint, Port, Service, ServiceName
from mycel.kit.dns import IPAddress, Question, RCode, Record, Type
from mycel.kit.dns_records import address_of_reverse, address_record, name_record, soa_record, srv_record, txt_record

VERSION = "1.1.0"
_TIMERS = (7200, 1800, 86400)
_WEIGHT = 100


def resolve(question: Question, settings: Kubernetes, directory: Directory) -> Answer | None:
    """The answer, or None when the question is for the next plugin."""
    folded = question.name.lower()
    zone = max((one for one in settings.zones if within(folded, one)), key=len, default=None)
    if zone is None:
        return None
    if not directory.synced:
        return Answer(rcode=RCode.SERVFAIL)
    view = _View(settings, directory, zone, question.name)
    if zone.endswith((".in-addr.arpa.", ".ip6.arpa.")) or zone in ("in-addr.arpa.", "ip6.arpa."):
        found = view.reverse(folded, question.type)
    else:
        stem = folded.removesuffix(zone).rstrip(".")
        found = view.forward(tuple(reversed(stem.split("."))) if stem else (), question.type)
    if found is None:
        if settings.fallthrough.covers(folded):
            return None
        return Answer(authority=(view.soa(),), rcode=RCode.NXDOMAIN)
    if not found.records:
        return Answer(authority=(view.soa(),))
    return Answer(found.records, additional=found.additional)


class Found(NamedTuple):
    """Records under a name that exists; perhaps none of the type asked for."""

    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


class _View(NamedTuple):
    settings: Kubernetes
    directory: Directory
    zone: str
    asked: str

    def soa(self) -> Record:
        """The zone's SOA; its minimum is how long an absence may be remembered."""
        ttl_s = self.settings.ttl_s
        return soa_record(
            self.zone,
            ttl_s,
            mname=f"ns.dns.{self.zone}",
            rname=f"hostmaster.{self.zone}",
            serial=self.directory.serial & 0xFFFFFFFF,
            timers=(*_TIMERS, ttl_s),
        )

    def forward(self, labels: tuple[str, ...], kind: int) -> Found | None:
        """`labels` from the zone downwards: ("svc", "shop", "web")."""
        match labels:
            case ():
                return self._apex(kind)
            case ("dns-version",):
                version = txt_record(self.asked, self.settings.ttl_s, VERSION)
                return Found((version,) if kind in (Type.TXT, Type.ANY) else ())
            case ("dns", *rest):
                return self._name_server(rest, kind)
            case ("svc" | "pod",):
                return Found() if labels[0] == "svc" or self.settings.pods != "disabled" else None
            case ("svc" | "pod", namespace) if self._serves(namespace):
                return Found()
            case ("svc", namespace, name, *rest) if self._serves(namespace):
                return self._service((namespace, name), tuple(rest), kind)
            case ("pod", namespace, dashed) if self._serves(namespace):
                return self._pod(namespace, dashed, kind)
            case _:
                return None

    def reverse(self, name: str, kind: int) -> Found | None:
        """A PTR question."""
        address = address_of_reverse(name)
        if address is None:
            return None
        ttl_s = self.settings.ttl_s
        zone = next((one for one in self.settings.zones if not one.endswith("arpa.")), "cluster.local.")
        targets: list[str] = []
        owner = self.directory.by_cluster_ip(address)
        if owner is not None and self._serves(owner[0]):
            targets.append(f"{owner[1]}.{owner[0]}.svc.{zone}")
        else:
            for (namespace, service), endpoint in sorted(self.directory.by_endpoint(address).items()):
                known = self.directory.service((namespace, service))
                if known is not None and known.headless and self._serves(namespace):
                    targets.append(f"{self._label(endpoint, address)}.{service}.{namespace}.svc.{zone}")
        if not targets:
            return None
        wanted = kind in (Type.PTR, Type.ANY)
        return Found(tuple(name_record(self.asked, Type.PTR, ttl_s, one) for one in targets) if wanted else ())

    def _apex(self, kind: int) -> Found:
        if kind == Type.SOA:
            return Found((self.soa(),))
        if kind == Type.NS:
            target = f"ns.dns.{self.zone}"
            record = name_record(self.asked, Type.NS, self.settings.ttl_s, target)
            return Found((record,), self._own_addresses(target))
        return Found()

    def _name_server(self, rest: list[str], kind: int) -> Found | None:
        if not rest:
            return Found()
        if rest != ["ns"]:
            return None
        return Found(tuple(one for one in self._own_addresses(self.asked) if one.type == kind))

    def _own_addresses(self, name: str) -> tuple[Record, ...]:
        """Our own service's cluster IP, under the name the cluster gives it."""
        own = self.directory.service(("kube-system", "kube-dns"))
        ips = own.cluster_ips if own else ()
        return tuple(address_record(name, self.settings.ttl_s, ip) for ip in ips)

    def _serves(self, namespace: str) -> bool:
        chosen = self.settings.namespaces
        return namespace in self.directory.namespaces and (not chosen or namespace in chosen)

    def _label(self, endpoint: Endpoint, address: IPAddress) -> str:
        return endpoint.label(address, pod_names=self.settings.endpoint_pod_names).lower()

    def _service(self, name: ServiceName, rest: tuple[str, ...], kind: int) -> Found | None:
        service = self.directory.service(name)
        if service is None:
            return None
        match rest:
            case ():
                return self._whole(name, service, kind)
            case (proto, port) if proto.startswith("_") and port.startswith("_"):
                return self._srv(name, service, kind, proto=proto[1:], port=port[1:])
            case (proto,) if proto in ("_tcp", "_udp", "_sctp"):
                return Found() if any(one.protocol.lower() == proto[1:] for one in service.ports) else None
            case (label,) if service.headless:
                return self._endpoint(name, label, kind)
            case _:
                return None

    def _whole(self, name: ServiceName, service: Service, kind: int) -> Found:
        ttl_s = self.settings.ttl_s
        if service.external_name:
            target = service.external_name.rstrip(".") + "."
            return Found((name_record(self.asked, Type.CNAME, ttl_s, target),))
        if kind == Type.SRV:
            return self._srv(name, service, kind, proto=None, port=None) or Found()
        addresses = service.cluster_ips
        if service.headless:
            addresses = tuple(dict.fromkeys(ip for _, _, ip in self._endpoints(name)))
        return Found(tuple(_addresses(self.asked, ttl_s, addresses, kind)))

    def _endpoints(self, name: ServiceName) -> Iterable[tuple[tuple[Port, ...], Endpoint, IPAddress]]:
        for one in self.directory.slices(name):
            for endpoint in one.endpoints:
                for address in endpoint.addresses:
                    yield one.ports, endpoint, address

    def _endpoint(self, name: ServiceName, label: str, kind: int) -> Found | None:
        addresses = [ip for _, endpoint, ip in self._endpoints(name) if self._label(endpoint, ip) == label]
        if not addresses:
            return None
        return Found(tuple(_addresses(self.asked, self.settings.ttl_s, dict.fromkeys(addresses), kind)))

    def _srv(
        self, name: ServiceName, service: Service, kind: int, *, proto: str | None, port: str | None
    ) -> Found | None:
        """SRV records; the target of a cluster IP is the service's own name, of endpoints theirs."""
        ttl_s = self.settings.ttl_s
        base = f"{name[1]}.{name[0]}.svc.{self.zone}"
        targets: dict[tuple[str, int], list[IPAddress]] = {}
        if service.headless:
            for ports, endpoint, address in self._endpoints(name):
                for one in ports:
                    if _fits(one, proto, port):
                        place = (f"{self._label(endpoint, address)}.{base}", one.number)
                        targets.setdefault(place, []).append(address)
        else:
            for one in service.ports:
                if _fits(one, proto, port):
                    targets[base, one.number] = list(service.cluster_ips)
        if not targets:
            return None
        if kind not in (Type.SRV, Type.ANY):
            return Found()
        weight = max(_WEIGHT // len(targets), 1)
        records = tuple(
            srv_record(self.asked, ttl_s, priority=0, weight=weight, port=number, target=target)
            for target, number in targets
        )
        extra = {address_record(target, ttl_s, ip): None for (target, _), found in targets.items() for ip in found}
        return Found(records, tuple(extra))

    def _pod(self, namespace: str, dashed: str, kind: int) -> Found | None:
        if self.settings.pods == "disabled":
            return None
        for text in (dashed.replace("-", "."), dashed.replace("-", ":")):
            try:
                address = ipaddress.ip_address(text)
            except ValueError:
                continue
            if self.settings.pods == "verified" and not self.directory.has_pod(namespace, str(address)):
                return None
            return Found(tuple(_addresses(self.asked, self.settings.ttl_s, [address], kind)))
        return None


def _addresses(name: str, ttl_s: int, addresses: Iterable[IPAddress], kind: int) -> Iterable[Record]:
    for address in addresses:
        record = address_record(name, ttl_s, address)
        if kind in (record.type, Type.ANY):
            yield record


def _fits(port: Port, proto: str | None, name: str | None) -> bool:
    if proto is None:
        return True
    return port.protocol.lower() == proto and port.name.lower() == name
