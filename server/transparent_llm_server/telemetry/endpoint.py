"""Where Prometheus reads metrics: a small HTTP server of its own, apart from gRPC's threads."""

from __future__ import annotations

import logging
import socket
import threading
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.rpc.listener import bound_address, host_and_port

log = logging.getLogger(__name__)
_SLOWEST_READER_S = 10.0
"""A connection that says nothing for this long is closed, which frees its thread."""

_POLL_S = 0.1
"""How soon a stop is seen."""


class Endpoint:
    """Serves a registry by HTTP from `start` to `stop`.

    Raises:
        InvalidRequestError: `listen` is not HOST:PORT.
    """

    def __init__(self, listen: str, registry: CollectorRegistry) -> None:
        self._host, self._port = host_and_port("metrics_listen is", listen)
        self._listen = listen
        self._registry = registry
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None
        self.address = ""
        """HOST:PORT, once started."""

    def start(self) -> None:
        """Listen.

        Raises:
            InvalidRequestError: the address is taken or cannot be bound.
        """
        try:
            self._server = self._bound()
        except OSError as error:
            raise InvalidRequestError(
                f"cannot serve metrics on {self._listen}: is it in use by another server? ({error})"
            ) from error
        self.address = bound_address(self._listen, self._server.server_port)
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(_POLL_S,), name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the socket and end the thread, if it was started."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = None

    def _bound(self) -> WSGIServer:
        family, *_, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]

        class _Server(ThreadingWSGIServer):
            address_family = family

            def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
                """A reader that went or said nothing; wsgiref would print a traceback."""
                log.debug("a metrics scrape from %s failed", client_address, exc_info=True)

        app = make_wsgi_app(self._registry)
        return make_server(str(address[0]), self._port, app, _Server, _Handler)


class _Handler(WSGIRequestHandler):
    timeout = _SLOWEST_READER_S

    def log_message(self, format: str, *args: object) -> None:
        """Not every scrape is news."""
