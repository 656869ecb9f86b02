"""Metrics and health by HTTP, for Prometheus and whoever restarts servers."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hotplug.errors import UsageError
from hotplug_rpc.addresses import Address, parse_bind
from hotplug_rpc.server.isolation import IsolatingService
from hotplug_rpc.server.service import Service

__all__ = ["serve_metrics"]

_log = logging.getLogger("hotplug.rpc")

_AT_ONCE = 16


class _Handler(BaseHTTPRequestHandler):
    """Answers GET /metrics and GET /healthz, and nothing else."""

    service: Service | IsolatingService
    timeout = 5

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._say(200, self.service.metrics_text(), "text/plain; version=0.0.4")
        elif self.path == "/healthz":
            closing = self.service.closing
            self._say(503 if closing else 200, "closing\n" if closing else "ok\n", "text/plain")
        else:
            self._say(404, "there are /metrics and /healthz\n", "text/plain")

    def _say(self, code: int, text: str, kind: str) -> None:
        data = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as the base has it
        """Say nothing: a question every few seconds is no news."""


class _HTTPServer(ThreadingHTTPServer):
    """A few questions at once; whoever comes on top of them is hung up on."""

    daemon_threads = True

    def __init__(self, address: Address, handler: type[_Handler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._free = threading.Semaphore(_AT_ONCE)
        super().__init__((address.host, address.port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up before the answer is no news either."""
        del request, client_address
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("a question by HTTP failed")


@contextlib.contextmanager
def serve_metrics(bind: str, service: Service | IsolatingService) -> Iterator[Address]:
    """Answer by HTTP inside the context; gives the address.

    Raises:
        UsageError: the address cannot be bound.
    """
    address = parse_bind(bind)
    handler = type("Handler", (_Handler,), {"service": service})
    try:
        http = _HTTPServer(address, handler)
    except OSError as error:
        raise UsageError(f"{address.server} cannot be bound: {error.strerror}") from error
    thread = threading.Thread(target=http.serve_forever, name="hotplug-rpc-http", daemon=True)
    thread.start()
    try:
        bound = Address(address.host, int(http.server_address[1]))
        _log.info("metrics are at http://%s/metrics", bound.server)
        yield bound
    finally:
        http.shutdown()
        http.server_close()
