"""How a client connects: one frozen value, from arguments and environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from transparent_llm.errors import InvalidRequestError
from transparent_llm.progress import Report
from transparent_llm.target import require_ports

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 300.0
SYSTEM_CA = "system"
NO_ACCESS = {"token": "", "tls_ca": "", "tls_cert": "", "tls_key": ""}
"""For a server of one's own, whatever the environment says of another."""


@dataclass(frozen=True)
class ClientConfig:
    """A connection to one server. What is not given comes from the environment, then from the defaults."""

    target: str = DEFAULT_TARGET
    """HOST:PORT, unix:PATH or any other gRPC target. Several servers of the same models: ipv4:A:PORT,B:PORT or
    dns:///NAME:PORT; each run then lives on one of them. Environment: TRANSPARENT_LLM_ADDRESS."""

    token: str | None = field(default=None, repr=False)
    """Sent as a bearer token with every call. Environment: TRANSPARENT_LLM_TOKEN."""

    tls_ca: str | None = None
    """Use TLS and trust this file of CA certificates (PEM), or the system's with "system". Environment:
    TRANSPARENT_LLM_TLS_CA. None: no TLS."""

    tls_cert: str | None = None
    """A file with the certificate, and its chain, that is shown to the server (PEM). Environment:
    TRANSPARENT_LLM_TLS_CERT. None: none is shown."""

    tls_key: str | None = None
    """A file with its private key (PEM, unencrypted). Environment: TRANSPARENT_LLM_TLS_KEY."""

    timeout_s: float = DEFAULT_TIMEOUT_S
    """For each call as a whole, transfer included."""

    progress: bool | Report | None = None
    """Show a bar for transfers over half a second. None: in a terminal or notebook only. Or a function that is called
    with the RPC's name, the bytes that have come, and all of them, after each message."""

    rerun: bool = True
    """Run the sentences again when the server no longer has the run."""

    cache_bytes: int = 512 * 2**20
    """Tensors of current runs that are kept, so that asking twice sends nothing twice. One that takes more than a
    quarter of it is not kept. 0: nothing is kept or read ahead."""

    read_ahead_bytes: int = 8 * 2**20
    """The most that is read ahead for code that walks heads, layers, positions or neurons. 0: nothing."""

    weights_bytes: int = 2**30
    """Output vectors of neurons that are kept; a layer that takes more than a quarter of it is not."""

    weights_dir: Path | None = None
    """A folder to keep them in beyond this process. Environment: TRANSPARENT_LLM_WEIGHTS_DIR. None: memory only."""

    max_bytes: int | None = None
    """The most that one value may take here; a larger one is refused before it is sent. None: no limit."""

    max_message_bytes: int = 16 * 2**20
    """The largest single message that is accepted. Tensors come in chunks of at most 4 MiB; the rest is tokens."""

    keepalive_s: float = 20.0
    """During a call that brings nothing for so long the server is asked for a sign of life."""

    keepalive_timeout_s: float = 20.0
    """A server that gives none for so long is lost, whatever time the call has left."""

    reconnect_s: float = 30.0
    """How long a call waits for a server that had answered before and was lost, within the time of the call."""

    shared_memory: bool = True
    """Take large tensors through shared memory from a server of this host and user, if it agrees."""

    @property
    def names_several(self) -> bool:
        """Whether the target can stand for several servers, among which each run is given its own."""
        scheme, _, addresses = self.target.partition(":")
        return scheme == "dns" or (scheme in ("ipv4", "ipv6") and "," in addresses)

    @property
    def is_local(self) -> bool:
        """Whether the target names this host."""
        host = self.target.rpartition(":")[0]
        if self.target.startswith("unix:") or host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:  # a name
            return False

    def __post_init__(self) -> None:
        require_ports(self.target)
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise InvalidRequestError(
                "this token has signs that cannot be sent: a line break at its end, perhaps, or letters not of ASCII"
            )
        if self.max_bytes is not None and self.max_bytes < 1:
            raise InvalidRequestError(f"max_bytes is {self.max_bytes}: it must be 1 or more, or None for no limit")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidRequestError("a client certificate needs both tls_cert and tls_key: its file and its key's")
        if self.tls_cert is not None and self.tls_ca is None:
            raise InvalidRequestError(
                "a client certificate is shown over TLS only: set tls_ca to the file of the server's authority, or to "
                '"system"'
            )

    @classmethod
    def from_env(
        cls,
        target: str | None,
        token: str | None,
        tls_ca: str | None,
        tls_cert: str | None = None,
        tls_key: str | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
    ) -> ClientConfig:
        """Arguments first, then the environment, then the defaults. An empty string says: not even from there.

        Raises:
            InvalidRequestError: a certificate without its key or the other way round, or without TLS; a token that
                cannot be sent; a port that is none.
        """

        def chosen(argument: str | None, name: str) -> str | None:
            return (environ.get(f"TRANSPARENT_LLM_{name}") if argument is None else argument) or None

        weights_dir = environ.get("TRANSPARENT_LLM_WEIGHTS_DIR")
        return cls(
            weights_dir=Path(weights_dir) if weights_dir else None,
            target=target or environ.get("TRANSPARENT_LLM_ADDRESS") or DEFAULT_TARGET,
            token=chosen(token, "TOKEN"),
            tls_ca=chosen(tls_ca, "TLS_CA"),
            tls_cert=chosen(tls_cert, "TLS_CERT"),
            tls_key=chosen(tls_key, "TLS_KEY"),
        )
