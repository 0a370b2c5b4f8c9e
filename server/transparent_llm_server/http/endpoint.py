"""The port for browsers: its sockets, a thread with an event loop of its own, and how many connections it takes."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from email.utils import formatdate

import grpc
from uvicorn.config import Config
from uvicorn.server import ServerState

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.http.application import Application
from transparent_llm_server.http.connection import Connection, Waits
from transparent_llm_server.http.files import Files
from transparent_llm_server.http.gateway import Admission, Gateway
from transparent_llm_server.http.origins import Origins
from transparent_llm_server.incidents import incident
from transparent_llm_server.rpc.listener import bound_address, host_and_port, sockets_at

log = logging.getLogger(__name__)
MOST_CONNECTIONS, TOLD_SO = 256, 32
"""Open at a time; and those beyond, which are answered 503. More are closed unheard."""

_KEEP_ALIVE_S = 10
"""How long a connection may be idle between two requests."""

_LOOK_S = 1.0
"""How often connections are looked for that wait too long."""

_LAST_BYTES_S = 0.25
"""At the end: for connections that were aborted to be gone."""


class Endpoint:
    """Serves the page and its calls from `start` to `close`; `contexts` gives the TLS of each new connection.

    Raises:
        InvalidRequestError: `page` is not HOST:PORT.
    """

    def __init__(
        self, config: ServerConfig, admission: Admission, contexts: Callable[[], ssl.SSLContext] | None = None
    ) -> None:
        self._listen = str(config.page)
        self._host, self._port = host_and_port("page is", self._listen)
        self._contexts, self._handshake_s = contexts, config.handshake_s
        self._waits = Waits(config.request_arrival_s, config.stall_s)
        self._look_s = min([_LOOK_S, *(wait / 4 for wait in (config.request_arrival_s, config.stall_s) if wait)])
        self._gateway = Gateway(config, admission)
        application = Application(
            Origins([self._host, *config.page_hosts]), Files(), self._gateway, config.max_metadata_bytes
        )
        self._uvicorn, self._state = _uvicorn(application, config), ServerState()
        self._sockets: list[socket.socket] = []
        self._folder = ""
        self._handshakes: dict[Connection, asyncio.Task[None]] = {}
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._ending: asyncio.Event | None = None
        self._ends_at = 0.0
        self._was_aborted = False
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self.address = ""
        """http://HOST:PORT or https://HOST:PORT, once it listens."""

    def listen(self, server: grpc.Server) -> None:
        """Take the address, and open a way for its calls into a server that has not started.

        Raises:
            InvalidRequestError: it is taken or cannot be bound.
        """
        try:
            self._sockets = sockets_at(self._host, self._port)
            self._folder = tempfile.mkdtemp(prefix="transparent-llm-")
            server.add_insecure_port(self._way_in)
        except (OSError, RuntimeError) as error:
            self._forget()
            raise InvalidRequestError(
                f"cannot serve the page on {self._listen}: is it in use by another server? ({error})"
            ) from error
        scheme = "https" if self._contexts is not None else "http"
        self.address = f"{scheme}://{bound_address(self._listen, self._sockets[0].getsockname()[1])}"

    def start(self) -> None:
        """Begin to answer. After the server has started."""
        self._thread.start()
        self._loop.result()

    def close(self, within_s: float) -> bool:
        """Take no more connections, and end those that are open; whether all ended by themselves in that time."""
        if self._thread.is_alive():
            self._ends_at = time.monotonic() + within_s
            assert self._ending is not None
            self._loop.result().call_soon_threadsafe(self._ending.set)
            self._thread.join(within_s + 4 * _LAST_BYTES_S)
        self._forget()
        return not self._was_aborted and not self._thread.is_alive()

    @property
    def _way_in(self) -> str:
        return f"unix:{self._folder}/page"

    def _forget(self) -> None:
        for each in self._sockets:
            each.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except Exception as error:
            log.exception("the page's port is closed")
            if not self._loop.done():
                self._loop.set_exception(error)

    async def _live(self) -> None:
        self._ending = asyncio.Event()
        self._uvicorn.load()
        self._gateway.open(self._way_in)
        tasks = [asyncio.create_task(self._accept(each)) for each in self._sockets]
        tasks.append(asyncio.create_task(self._look()))
        self._loop.set_result(asyncio.get_running_loop())
        await self._ending.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._end_connections()
        await self._gateway.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:  # no descriptor is left
                log.warning("the page's port cannot accept a connection: %s", error)
                await asyncio.sleep(_LOOK_S)
                continue
            if len(self._handshakes.keys() | self._state.connections) >= MOST_CONNECTIONS + TOLD_SO:
                accepted.close()
                continue
            connection = Connection(self._uvicorn, self._state, self._waits)
            self._handshakes[connection] = loop.create_task(self._connect(connection, accepted))

    async def _connect(self, connection: Connection, accepted: socket.socket) -> None:
        """Shake hands; what fails is a client's to see."""
        try:
            context = self._contexts() if self._contexts is not None else None
            limit_s = self._handshake_s if context is not None else None
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=context, ssl_handshake_timeout=limit_s
            )
        except OSError as error:
            accepted.close()
            log.debug("a connection to the page's port failed: %s", error)
        finally:
            self._handshakes.pop(connection, None)

    async def _look(self) -> None:
        """Connections that wait too long for their client are ended."""
        while True:
            self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            now = time.monotonic()
            try:
                for connection in self._connections():
                    if connection.is_overdue(now):
                        connection.abort()
            except Exception as error:  # the next look is another chance, and needed
                incident("the page's port", error)
            await asyncio.sleep(self._look_s)

    async def _end_connections(self) -> None:
        """Those that are idle now, those that are at something when that is over, and the rest when time is."""
        for handshake in self._handshakes.values():
            handshake.cancel()
        for connection in self._connections():
            connection.shutdown()
        await self._gone(self._ends_at)
        for connection in self._connections():
            self._was_aborted = True
            connection.abort()
        await self._gone(time.monotonic() + _LAST_BYTES_S)

    async def _gone(self, until: float) -> None:
        while (self._state.connections or self._state.tasks) and time.monotonic() < until:
            await asyncio.sleep(0.01)

    def _connections(self) -> list[Connection]:
        return [connection for connection in self._state.connections if isinstance(connection, Connection)]


def _uvicorn(application: Application, config: ServerConfig) -> Config:
    """As far as uvicorn's part in this goes: from bytes to requests, and from answers to bytes."""
    return Config(
        application,
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        limit_concurrency=MOST_CONNECTIONS + 1,
        h11_max_incomplete_event_size=config.max_metadata_bytes,
    )
