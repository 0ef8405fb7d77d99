"""What the agent's socket answers: each view gathers from the stores and hands to `views`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from mycel.abi import InterfaceKey
from mycel.agent import tables, views
from mycel.agent.endpoints import Endpoints
from mycel.agent.envoy_configs.configs import Configs
from mycel.agent.identities import Identities
from mycel.agent.learnt import Learnt
from mycel.agent.planner import Planner
from mycel.agent.policies import Policies
from mycel.agent.proxy.listing import Listener, bound, of_config, of_policies
from mycel.agent.proxy.policy_listeners import PolicyListeners
from mycel.agent.proxy.records import Cause, Records, words
from mycel.agent.server import View
from mycel.agent.settings import VERSION, Settings
from mycel.agent.watches import Watches
from mycel.datapath.node import Datapath
from mycel.kit.readiness import Readiness
from mycel.kit.reconcile import Report
from mycel.model.address import format_address
from mycel.plan.rows import ThisNode

_UDP = Path("/proc/net/udp")


class Answers:
    """The views of one agent."""

    def __init__(
        self,
        settings: Settings,
        *,
        this: ThisNode,
        watches: Watches,
        endpoints: Endpoints,
        identities: Identities,
        planner: Planner,
        datapath: Datapath,
        policies: Policies,
        learnt: Learnt,
        records: Records,
        listeners: PolicyListeners,
        configs: Configs,
        report: Report,
        ready: Readiness,
    ) -> None:
        self._settings = settings
        self._this = this
        self._watches = watches
        self._endpoints = endpoints
        self._identities = identities
        self._planner = planner
        self._datapath = datapath
        self._policies = policies
        self._learnt = learnt
        self._records = records
        self._policy_listeners = listeners
        self._configs = configs
        self._report = report
        self._ready = ready
        self.flow_metrics: Callable[[], str] | None = None
        self.hubble_problem = "starting" if settings.hubble else "disabled"

    def views(self) -> dict[str, View]:
        """Views by path."""
        return {
            "/v1/healthz": self.status,
            "/v1/status": self.status,
            "/v1/endpoint": self.endpoints,
            "/v1/identity": self.identities,
            "/v1/service": self.services,
            "/v1/bpf/{table}": self.bpf,
            "/v1/metrics.json": self.metrics,
            "/v1/policy": self.policy,
            "/v1/proxy": self.proxy,
            "/v1/fqdn/cache": self.fqdn_cache,
            "/v1/fqdn/names": self.fqdn_names,
            "/v1/config": self.config,
            "/v1/node": self.nodes,
            "/v1/debug": self.debug,
        }

    async def status(self, _request: web.Request) -> Any:
        """models.StatusResponse."""
        failing = [each for each in (informer.statistics() for informer in self._watches.all()) if each.last_error]
        return views.status(
            waiting_for=self._ready.waiting_for(),
            problems=[*self._report.problems(), *self._policies.problems()],
            kubernetes="; ".join(f"{each.resource}: {each.last_error}" for each in failing),
            hubble=self.hubble_problem,
            flows_lost=words(self._records.losses),
            redirects=[each.as_redirect() for each in await self._listeners()],
            node=self._settings.node_name,
            cluster=self._settings.cluster_name,
            addresses_used=self._endpoints.pool_usage(),
            router=format_address(self._this.router_addresses[0]),
            targets=self._report.targets.values(),
            version=VERSION,
            nodes=sorted(node.name for node in self._watches.nodes.store.values()),
        )

    async def endpoints(self, _request: web.Request) -> Any:
        """models.Endpoint of every pod here, and of the node."""
        interfaces = self._datapath.maps.interfaces
        pods = [
            views.endpoint(
                each,
                interfaces.get(InterfaceKey(each.ifindex)),
                self._policies.endpoint_view(each.endpoint_id),
            )
            for _, each in sorted(self._endpoints.all().items())
        ]
        revision = self._policies.objects.realized_revision
        return [views.host_endpoint(self._settings.node_name, self._this.addresses, revision), *pods]

    async def identities(self, _request: web.Request) -> Any:
        """models.Identity."""
        return views.identities(self._identities.all(), self._policies.local_identities())

    async def services(self, _request: web.Request) -> Any:
        """models.Service."""
        numbers = {
            frontend.group: self._planner.service_numbers.number(frontend.group)
            for frontend in self._planner.frontends.values()
        }
        return views.services(self._planner.frontends, numbers)

    async def bpf(self, request: web.Request) -> Any:
        """A table of maps: planned beside realized. Raises LookupError."""
        name = request.match_info["table"]
        names = tables.TABLES.get(name, ())
        realized = {each: await asyncio.to_thread(self._datapath.dump, each) for each in names}
        desired = self._planner.plan.by_map() if self._planner.plan else {}
        return tables.table(name, desired, realized)

    async def metrics(self, _request: web.Request) -> Any:
        """Every metric."""
        counters = await asyncio.to_thread(self._datapath.metrics)
        return views.metrics(
            counters,
            endpoints=len(self._endpoints.all()),
            targets=self._report.targets.values(),
            policy_revision=self._policies.objects.realized_revision,
            l7_losses={cause: self._records.losses.get(cause, 0) for cause in Cause},
        )

    async def metrics_text(self, request: web.Request) -> str:
        """Every metric for Prometheus."""
        text = views.prometheus(await self.metrics(request))
        return text + self.flow_metrics() if self.flow_metrics else text

    async def policy(self, _request: web.Request) -> Any:
        """models.Policy."""
        return {"revision": self._policies.objects.realized_revision, "policy": self._policies.objects.listing()}

    async def proxy(self, _request: web.Request) -> Any:
        """Listeners of this node's proxies."""
        return [each.as_json() for each in await self._listeners()]

    async def _listeners(self) -> list[Listener]:
        policies, configs = self._policies, self._configs
        open_ = bound(await asyncio.to_thread(_UDP.read_text))
        found = of_policies(policies.engine, policies.subjects.values(), self._policy_listeners.outcome, open_)
        for config in configs.configs:
            said = "; ".join((*configs.refusals(config), *configs.missing_secrets(config)))
            found += of_config(config, listens=configs.listens(config), words=said)
        return found

    async def fqdn_cache(self, _request: web.Request) -> Any:
        """What the DNS proxy learnt."""
        by_address = {address: each for each in self._endpoints.all().values() for address in each.addresses}
        return self._learnt.listing(by_address.get)

    async def fqdn_names(self, _request: web.Request) -> Any:
        """Selectors of toFQDNs in force, and identities of addresses with names."""
        engine = self._policies.engine
        return {
            "selectors": sorted(engine.names.selectors),
            "identities": [
                {"id": number, "selectors": list(key.selectors), "network": str(key.network)}
                for key, number in sorted(engine.names.identities.items(), key=lambda item: item[1])
            ],
        }

    async def config(self, _request: web.Request) -> Any:
        """The settings in force."""
        return {
            name: value if isinstance(value, bool | int | float) else str(value)
            for name in self._settings.__dataclass_fields__
            for value in (getattr(self._settings, name),)
        }

    async def nodes(self, _request: web.Request) -> Any:
        """Nodes with their addresses and pod networks."""
        return [
            {
                "name": node.name,
                "local": node.name == self._settings.node_name,
                "addresses": list(node.internal_addresses),
                "pod-networks": list(node.pod_networks),
            }
            for _, node in sorted(self._watches.nodes.store.items())
        ]

    async def debug(self, _request: web.Request) -> Any:
        """Counters of the machinery."""
        return {
            "informers": [views.row(_plain(informer.statistics())) for informer in self._watches.all()],
            "targets": [_plain(each) for each in self._report.targets.values()],
            "plan": str(self._planner.plan),
        }


def _plain(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
