"""The API server's process: settings in, everything wired, run until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Sequence

from mycel.cluster.apiserver.pki import Pki
from mycel.cluster.apiserver.settings import Settings, parse_settings
from mycel.cluster.store import Store, StoreError

log = logging.getLogger("mycel.apiserver")


async def run_apiserver(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; every acknowledged write is on the disk by then anyway.

    Start: keys, store, served kinds, listeners, the cluster's own objects, controllers. Stop: controllers,
    watches, listeners, store.
    """
    from mycel.cluster.apiserver.admission import Admission
    from mycel.cluster.apiserver.allocate import Allocator
    from mycel.cluster.apiserver.bootstrap import ensure_base_objects
    from mycel.cluster.apiserver.kinds import builtin_kinds
    from mycel.cluster.apiserver.registry import Registry
    from mycel.cluster.apiserver.server import Server
    from mycel.cluster.apiserver.tokens import Tokens
    from mycel.cluster.apiserver.writes import Writes

    pki = Pki(settings.pki)
    service_address = str(settings.service_subnet[1])
    pki.ensure(names=settings.names, addresses=[*(listen.host for listen in settings.listen), service_address])
    store = Store(settings.database)
    registry = Registry(builtin_kinds())
    admission = Admission(store, registry, Allocator(settings.service_subnet), ca_pem=pki.ca_certificate.read_text())
    admission.load()
    gc.freeze()
    writes = Writes(store, admission)
    await ensure_base_objects(store, writes, registry, settings)
    server = Server(store, registry, writes, Tokens(pki, store), pki, settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    log.info("serving on %s", ", ".join(str(listen) for listen in server.listening))
    background: list[asyncio.Task[None]] = []
    if settings.controllers:
        background.append(asyncio.create_task(_run_controllers(settings, pki, server.listening[0].port)))
    background.append(asyncio.create_task(server.expire_events(), name="event expiry"))
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([waiting, *background], return_when=asyncio.FIRST_COMPLETED)
        for task in background:
            if task.done() and not stop.is_set():
                task.result()  # a background task never ends by itself: let its error end the process
    finally:
        for task in (waiting, *background):
            task.cancel()
        await asyncio.gather(waiting, *background, return_exceptions=True)
        await server.stop()
        await store.close()


async def _run_controllers(settings: Settings, pki: Pki, port: int) -> None:
    """Controllers and scheduler: ordinary clients of this server, in its process."""
    from mycel.cluster import controllers
    from mycel.k8s.endpoint import Endpoint

    pair = pki.pair("controllers")
    host = settings.listen[0].host
    endpoint = Endpoint(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca_pem=pki.ca_certificate.read_text(),
        certificate_pem=pair.certificate.read_text(),
        key_pem=pair.key.read_text(),
    )
    await controllers.run(endpoint, settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="level=%(levelname)s logger=%(name)s msg=%(message)s",
        stream=sys.stderr,
    )
    try:
        asyncio.run(run_apiserver(settings))
    except StoreError as error:
        log.error("%s", error)
        return 1
    except OSError as error:
        log.error("the API server cannot start: %s", error)
        return 1
    return 0
