"""A pod's resolv.conf and hosts file, from its dnsPolicy, dnsConfig and hostAliases. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mycel.cluster.node.names import Object


@dataclass(frozen=True, slots=True)
class Resolver:
    """The content of a resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """As a file."""
        lines = [f"search {' '.join(self.searches)}"] if self.searches else []
        lines += [f"nameserver {server}" for server in self.servers]
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "\n".join(lines) + "\n"


def parse(text: str) -> Resolver:
    """Read a resolv.conf; the last `search` and `options` lines count, as in the C library."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        match words:
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search", *names]:
                searches = tuple(names)
            case ["options", *names]:
                options = tuple(names)
            case _:
                pass
    return Resolver(tuple(servers), searches, options)


def resolver(pod: Object, *, cluster_dns: str, cluster_domain: str, node: Resolver) -> Resolver:
    """What the pod's policy asks for; its dnsConfig is added at the end."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet"):
        namespace = pod["metadata"]["namespace"]
        own = (f"{namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain)
        base = Resolver((cluster_dns,), own + node.searches, ("ndots:5",))
    elif policy == "None":
        base = Resolver()
    else:
        base = node
    extra = spec.get("dnsConfig") or {}
    options = {option.partition(":")[0]: option for option in base.options}
    for option in extra.get("options") or []:
        value = option.get("value")
        options[option["name"]] = option["name"] if value is None else f"{option['name']}:{value}"
    return Resolver(
        tuple(dict.fromkeys((*base.servers, *(extra.get("nameservers") or [])))),
        tuple(dict.fromkeys((*base.searches, *(extra.get("searches") or [])))),
        tuple(options.values()),
    )


def hosts(pod: Object, *, addresses: Iterable[str], hostname: str, node_hosts: str) -> str:
    """The pod's /etc/hosts; on the host network the node's own with the aliases added."""
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        lines = ["# Kubernetes-managed hosts file (host network).", node_hosts.rstrip("\n")]
    else:
        lines = [
            "# Kubernetes-managed hosts file.",
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
            "fe00::0\tip6-localnet",
            "fe00::0\tip6-mcastprefix",
            "fe00::1\tip6-allnodes",
            "fe00::2\tip6-allrouters",
        ]
        subdomain = spec.get("subdomain")
        namespace = pod["metadata"]["namespace"]
        full = f"{hostname}.{subdomain}.{namespace}.svc.cluster.local\t{hostname}" if subdomain else hostname
        lines += [f"{address}\t{full}" for address in addresses]
    aliases = spec.get("hostAliases") or []
    if aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += [f"{alias['ip']}\t" + "\t".join(alias.get("hostnames") or []) for alias in aliases]
    return "\n".join(lines) + "\n"


def hostname_of(pod: Object) -> str:
    """The host name inside the pod: spec.hostname or the pod's name, cut to what a label may be."""
    name = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return str(name)[:63].rstrip("-.")
