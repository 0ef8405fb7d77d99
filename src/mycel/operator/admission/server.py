"""The admission server: HTTPS on the node's address, for the API server. Its certificate changes while it serves."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from mycel.kit.latest import Latest
from mycel.operator.admission.answer import NoReview, answer
from mycel.operator.admission.certificates import Material
from mycel.operator.admission.configuration import PATH
from mycel.operator.admission.review import Mesh, prepare

log = logging.getLogger(__name__)
_MOST_BYTES = 8 << 20  # an object and the one before it, each as large as an API server takes them
_MOST_BODIES = 8
_BODY_S = 5.0
_PORT_TAKEN_S = 10.0


class AdmissionServer:
    """Answers reviews. Anybody who reaches the port may ask, so that what it costs is bounded: a few reviews are held
    in memory, one at a time is judged, beside the event loop, and none whose asker is gone.
    """

    def __init__(self, address: str, port: int, mesh: Mesh) -> None:
        self._address = address
        self.port = port
        self._mesh = mesh
        self._room = asyncio.Semaphore(_MOST_BODIES)
        self._judge = ThreadPoolExecutor(1, thread_name_prefix="admission")
        self.serving = asyncio.Event()
        self.allowed = self.refused = 0

    def metrics(self) -> str:
        """In the format of Prometheus."""
        name = "cilium_operator_admission_reviews_total"
        return f'{name}{{verdict="allowed"}} {self.allowed}\n{name}{{verdict="refused"}} {self.refused}\n'

    async def run(self, material: Latest[Material]) -> None:
        """Serve with the newest certificate, until cancelled."""
        version = await material.newer_than(0)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        load(context, material.value)
        await asyncio.get_running_loop().run_in_executor(self._judge, prepare)
        app = web.Application(client_max_size=_MOST_BYTES)
        app.router.add_post(PATH, self._validate)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await runner.setup()
        try:
            while not await self._listen(runner, context):  # noqa: ASYNC110 (until another program ends)
                await asyncio.sleep(_PORT_TAKEN_S)
            self.serving.set()
            log.info("objects are judged at apply: admission is served at %s port %d", self._address, self.port)
            while True:
                version = await material.newer_than(version)
                load(context, material.value)  # what handshakes show from now on
                log.info("the admission server has a new certificate")
        finally:
            self.serving.clear()
            await runner.cleanup()
            self._judge.shutdown(wait=False, cancel_futures=True)

    async def _listen(self, runner: web.AppRunner, context: ssl.SSLContext) -> bool:
        """Whether it listens now. Another program's port is no reason to end the operator."""
        site = web.TCPSite(runner, self._address, self.port, ssl_context=context, reuse_address=True)
        try:
            await site.start()
        except OSError as exc:
            await site.stop()
            log.warning("nothing is judged at apply: %s; choose another admission.port", exc)
            return False
        self.port = runner.addresses[0][1]
        return True

    async def _validate(self, request: web.Request) -> web.Response:
        try:
            async with self._room:
                async with asyncio.timeout(_BODY_S):
                    body = await request.read()
                given = await asyncio.get_running_loop().run_in_executor(self._judge, answer, body, self._mesh)
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        except NoReview as exc:
            raise web.HTTPBadRequest(text=str(exc)) from None
        self.allowed += given.allowed
        self.refused += not given.allowed
        return web.Response(body=given.body, content_type="application/json")


def load(context: ssl.SSLContext, material: Material) -> None:
    """Have a context show a certificate. It reads files only, and a key has no place on a disk."""
    descriptor = os.memfd_create("certificate")
    with os.fdopen(descriptor, "wb") as file:
        file.write(material.certificate + material.key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
