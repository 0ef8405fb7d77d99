"""A webhook as people write them: a small HTTPS server that keeps what it was asked."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mycel.cluster.apiserver.pki import Pki

Object = dict[str, Any]


class Webhook:
    """What it answers may be changed at any time."""

    def __init__(self, port: int, ca_pem: bytes) -> None:
        self.port = port
        self.bundle = base64.b64encode(ca_pem).decode()
        self.asked: list[Object] = []
        self.answer: Callable[[Object], Object] = lambda request: {"allowed": True}

    def client(self) -> Object:
        return {"url": f"https://127.0.0.1:{self.port}/validate", "caBundle": self.bundle}


@contextmanager
def listening(folder: Path) -> Generator[Webhook]:
    """It listens on loopback, with a certificate for 127.0.0.1 and hook.default.svc."""
    pki = Pki(folder)
    pki.ensure(names=["hook.default.svc"], addresses=["127.0.0.1"])
    pair = pki.pair("apiserver")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.asked.append(review["request"])
            response = {"uid": review["request"]["uid"], **hook.answer(review["request"])}
            body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    hook = Webhook(server.server_address[1], pki.ca_certificate.read_bytes())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
