"""A gRPC channel that opens at the first call, and again in a process that was forked."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import grpc

from transparent_llm.config import SYSTEM_CA, ClientConfig
from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire import methods

_SERVICE_CONFIG = (Path(__file__).parent / "service_config.json").read_text(encoding="utf-8")
_inherited: list[grpc.Channel] = []  # channels of a parent process: closing or collecting them here would hang


class LazyChannel:
    """The channel of one client and all its copies."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._channel: grpc.Channel | None = None
        self._stub: Any = None
        self._closed = False

    def stub(self) -> Any:
        """The service's calls on the open channel, made once."""
        channel = self.get()
        if self._stub is None:
            self._stub = methods.stub(channel)
        return self._stub

    def get(self) -> grpc.Channel:
        """The open channel of this process.

        Raises:
            InvalidRequestError: the client was closed, or its CA file cannot be read.
        """
        if self._pid != os.getpid():
            self._leave_parent()
        with self._lock:
            if self._closed:
                raise InvalidRequestError("this client is closed; make a new one with connect()")
            if self._channel is None:
                self._channel = _open(self._config)
            return self._channel

    def close(self) -> None:
        """Close it for good; calls in progress are cancelled."""
        with self._lock:
            self._closed = True
            if self._channel is not None and self._pid == os.getpid():
                self._channel.close()
            self._channel = self._stub = None

    def _leave_parent(self) -> None:
        if self._channel is not None:
            _inherited.append(self._channel)
        self._lock, self._channel, self._stub, self._pid = threading.Lock(), None, None, os.getpid()


def _open(config: ClientConfig) -> grpc.Channel:
    options = [
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
    ]
    if config.tls_ca is None:
        return grpc.insecure_channel(config.target, options)
    return grpc.secure_channel(config.target, grpc.ssl_channel_credentials(_root_certificates(config.tls_ca)), options)


def _root_certificates(tls_ca: str) -> bytes | None:
    if tls_ca == SYSTEM_CA:
        return None
    try:
        return Path(tls_ca).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"cannot read the CA certificates: {error}") from error
