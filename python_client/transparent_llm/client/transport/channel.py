"""A gRPC channel that opens at the first call, and again in a process that was forked."""

from __future__ import annotations

import json
import os
import ssl
import threading
import weakref
from pathlib import Path

import grpc
import grpc.experimental
import torch

from transparent_llm.client.config import SYSTEM_CA, ClientConfig
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.errors import InvalidRequestError
from transparent_llm.network.proxies import Route
from transparent_llm.runtime import memory
from transparent_llm.runtime.forking import in_child
from transparent_llm.wire.frames import LARGEST_FRAME_BYTES, NO_COMPRESSION
from transparent_llm.wire.methods import RUN_KEY_HEADER
from transparent_llm.wire.rpcs import Stub

_SERVICE_CONFIG = (Path(__file__).parent / "service_config.json").read_text(encoding="utf-8")
_RING_HASH = {"ring_hash_experimental": {"requestHashHeader": RUN_KEY_HEADER}}
"""Of several servers, the run's key picks one on a hash ring of gRPC's own."""

_RING_HASH_SINCE = (1, 70)
"""The first grpcio with which it was tested; 1.62 does not know the header."""

_RING_HASH_SWITCH = "GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY"
"""gRPC honours the header only with this in the environment."""

_RESOLVE_EVERY_MS = 2_000
"""Names are looked up again when a server is lost, but no more often than this; gRPC's default is 30 s."""

LONGEST_CONNECT_MS = 5_000
"""A server that does not finish the handshake within this time counts as absent."""

_FIRST_RECONNECT_MS, _LAST_RECONNECT_MS = 100, 1_000
"""Pauses between tries to connect grow from the one to the other, in which calls fail at once; gRPC's go to 120 s."""

_inherited: list[object] = []  # channels of a parent process: closing or collecting them in a child would hang
_open_ones: weakref.WeakSet[LazyChannel] = weakref.WeakSet()


class LazyChannel:
    """The channel of one client and all its copies."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self.route = config.route
        """The way to the server, which errors name."""

        self._closed = False
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stub: Stub | None = None
        _open_ones.add(self)

    def get(self) -> grpc.Channel:
        """The open channel of this process.

        Raises:
            InvalidRequestError: the client was closed, or files of certificates cannot be used.
        """
        with self._lock:
            return self._opened()

    def stub(self) -> Stub:
        """The service's calls on the open channel, made once."""
        with self._lock:
            channel = self._opened()
            if self._stub is None:
                self._stub = Stub(channel)
            return self._stub

    @property
    def is_open(self) -> bool:
        """Whether this process has made calls, and so may have computed with what came."""
        return self._channel is not None

    @property
    def is_closed(self) -> bool:
        """Whether it was closed for good."""
        return self._closed

    def close(self) -> None:
        """Close it for good; calls in progress are cancelled."""
        with self._lock, Interruptible():
            self._closed = True
            if self._channel is not None:
                self._channel.close()
            self._channel = self._stub = None

    def leave_parent(self) -> None:
        """In a forked child: what was inherited is kept alive unused, and the next call opens again."""
        _inherited.append((self._channel, self._stub))
        self._lock, self._channel, self._stub = threading.Lock(), None, None

    def _opened(self) -> grpc.Channel:
        if self._closed:
            raise closed_error()
        if self._channel is None:
            memory.keep_freed_pages()
            self._channel = _open(self._config, self.route)
        return self._channel


def closed_error() -> InvalidRequestError:
    """What a call on a closed client raises."""
    return InvalidRequestError("this client is closed; make a new one with connect()")


def _leave_parents() -> None:
    """Also: torch's threads for one operation are the parent's, too, and one that waits for them would never end."""
    for channel in list(_open_ones):
        if channel.is_open:
            torch.set_num_threads(1)
        channel.leave_parent()


in_child(_leave_parents)


def _open(config: ClientConfig, route: Route) -> grpc.Channel:
    options = [
        *route.options,
        ("grpc.service_config", _service_config(config)),
        ("grpc.dns_min_time_between_resolutions_ms", _RESOLVE_EVERY_MS),
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.http2.max_frame_size", LARGEST_FRAME_BYTES),
        NO_COMPRESSION,
        ("grpc.min_reconnect_backoff_ms", LONGEST_CONNECT_MS),
        ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", _LAST_RECONNECT_MS),
        ("grpc.use_local_subchannel_pool", 1),  # a new client does not wait for what another one has failed to reach
        ("grpc.keepalive_time_ms", int(config.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(config.keepalive_timeout_s * 1000)),
        ("grpc.http2.ping_timeout_ms", int(config.keepalive_timeout_s * 1000)),  # the one that counts in gRPC 1.85
        ("grpc.http2.max_pings_without_data", 0),  # as often as that during one call
        (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),  # no thread for each stream, see ADR 9
    ]
    if config.tls_ca is None:
        return grpc.insecure_channel(config.target, options)
    return grpc.secure_channel(config.target, _credentials(config), options)


def _service_config(config: ClientConfig) -> str:
    if not config.names_several:
        return _SERVICE_CONFIG
    version = tuple(int(part) for part in grpc.__version__.split(".")[:2])
    if version < _RING_HASH_SINCE:
        raise InvalidRequestError(
            f"{config.target} names several servers, which needs grpcio {'.'.join(map(str, _RING_HASH_SINCE))} or "
            f"newer; this is {grpc.__version__}: install a newer one, name one server, or put a proxy before them"
        )
    os.environ[_RING_HASH_SWITCH] = "true"
    return json.dumps({**json.loads(_SERVICE_CONFIG), "loadBalancingConfig": [_RING_HASH]})


def _credentials(config: ClientConfig) -> grpc.ChannelCredentials:
    """From files that fit together: of others gRPC would say only that there is no connection."""
    context, roots, key, chain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), None, None, None
    if config.tls_ca is not None and config.tls_ca != SYSTEM_CA:
        try:
            roots = Path(config.tls_ca).read_bytes()
            context.load_verify_locations(config.tls_ca)
        except (OSError, ValueError) as error:  # an SSLError too; a name that no file can have
            raise InvalidRequestError(f"cannot read the CA certificates: {config.tls_ca}: {_why(error)}") from error
    if config.tls_cert is not None and config.tls_key is not None:
        try:
            key, chain = Path(config.tls_key).read_bytes(), Path(config.tls_cert).read_bytes()
            context.load_cert_chain(config.tls_cert, config.tls_key, password="")  # none is asked for at a terminal
        except (OSError, ValueError) as error:
            raise InvalidRequestError(
                f"cannot use the client certificate {config.tls_cert} with the key {config.tls_key}: {_why(error)}; "
                "both must be PEM, the key without a password"
            ) from error
    return grpc.ssl_channel_credentials(roots, key, chain)


def _why(error: OSError | ValueError) -> str:
    reason = getattr(error, "reason" if isinstance(error, ssl.SSLError) else "strerror", None)
    return str(reason or error)
