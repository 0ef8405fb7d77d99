"""CiliumEnvoyConfigs on this node: what its Envoy is to hold, which services go to its listeners, how objects stand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from mycel.abi import ServiceKey, ServiceValue
from mycel.agent.envoy_configs.configs import Configs
from mycel.agent.envoy_configs.status import ConfigStatus
from mycel.agent.planner import Part, Planner
from mycel.agent.secrets import Secrets
from mycel.agent.settings import Settings
from mycel.agent.watches import Watches
from mycel.k8s.client import ApiClient
from mycel.model.address import Address, format_address, is_ipv4
from mycel.plan.rows import Redirect, ThisNode
from mycel.service.balance import FrontendKey


class EnvoyConfigs:
    """Configs, the Secrets they name and their status, together; `configs` is what others talk to."""

    def __init__(
        self, client: ApiClient, watches: Watches, settings: Settings, this: ThisNode, planner: Planner
    ) -> None:
        self._planner = planner
        self._secrets = Secrets(client)
        ingress = next((format_address(each) for each in this.ingress_addresses if is_ipv4(each)), "")
        self.configs = Configs(
            watches,
            self._secrets,
            node=settings.node_name,
            ingress=ingress,
            only_ingress=not settings.envoy_config,
            shown=settings.shown_headers,
            touch_services=lambda: planner.touch(Part.SERVICES),
        )
        self._status = ConfigStatus(client, watches, self.configs, node=settings.node_name)

    def adopt(self, services: Mapping[ServiceKey, ServiceValue]) -> None:
        """Go on with the redirects an earlier agent wrote, as its map tells them."""
        self.configs.adopt(
            {
                FrontendKey(Address(key.addr), key.port, key.protocol): Redirect(
                    value.proxy_port, value.proxy_port_outside
                )
                for key, value in services.items()
                if value.proxy_port
            }
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.configs.run(lambda: self._planner.realize(Part.SERVICES)))
            group.create_task(self._secrets.run())
            await self.configs.snapshot.newer_than(0)
            group.create_task(self._status.run())
