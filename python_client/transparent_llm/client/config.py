"""How a client connects: one frozen value, from arguments and environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from transparent_llm.client.progress import Report
from transparent_llm.errors import InvalidRequestError
from transparent_llm.network import proxies
from transparent_llm.network.target import DEFAULT_TARGET, completed, parsed
from transparent_llm.selection import Padding, checked_padding

DEFAULT_TIMEOUT_S = 300.0
SYSTEM_CA = "system"


class Access(TypedDict, total=False):
    """The settings by which a client is let in, see `ClientConfig`; None leaves one to the environment."""

    token: str | None
    tls_ca: str | None
    tls_cert: str | None
    tls_key: str | None
    proxy: str | None


NO_CREDENTIALS = Access(token="", tls_ca="", tls_cert="", tls_key="", proxy="none")
"""For one's own server, whatever the environment says about another."""

_LONGEST_S = 10 * 365 * 86_400.0
"""The longest time that gRPC's clock can represent."""

_LONGEST_KEEPALIVE_S = 2_000_000.0
_LARGEST_MESSAGE_BYTES = 2**31 - 1


@dataclass(frozen=True)
class ClientConfig:
    """A connection to one server. What is not given comes from the environment, then from the defaults."""

    target: str = DEFAULT_TARGET
    """HOST:PORT, HOST (port 50051), unix:PATH or any other gRPC target. Several servers of the same models:
    ipv4:A:PORT,B:PORT or dns:///NAME:PORT; each run then lives on one of them. Environment: TRANSPARENT_LLM_ADDRESS."""

    token: str | None = field(default=None, repr=False)
    """Sent as a bearer token with every call. Environment: TRANSPARENT_LLM_TOKEN."""

    tls_ca: str | None = None
    """Use TLS and trust this file of CA certificates (PEM), or the system's with "system". Environment:
    TRANSPARENT_LLM_TLS_CA. None: no TLS."""

    tls_cert: str | None = None
    """A file with the certificate, and its chain, that is presented to the server (PEM). Environment:
    TRANSPARENT_LLM_TLS_CERT. None: none is presented."""

    tls_key: str | None = None
    """A file with its private key (PEM, unencrypted). Environment: TRANSPARENT_LLM_TLS_KEY."""

    proxy: str | None = field(default=None, repr=False)
    """http://HOST:PORT of an HTTP proxy; "environment": the one that `https_proxy` and its like name; "none".
    Environment: TRANSPARENT_LLM_PROXY. None: that of the environment for public targets by TLS, none for others."""

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
    """Output vectors of neurons, weights of heads and scores made of them that are kept; a layer, or another
    answer, that takes more than a quarter of it is not."""

    weights_dir: Path | None = None
    """A folder to keep them in beyond this process. Environment: TRANSPARENT_LLM_WEIGHTS_DIR. None: memory only."""

    weights_dir_bytes: int = 16 * 2**30
    """The most that the files in it take, for all servers; the least recently read are deleted."""

    max_bytes: int | None = None
    """The most that one value may take here; a larger one is refused before it is sent. None: no limit."""

    max_message_bytes: int = 16 * 2**20
    """The largest single message that is accepted. Tensors come in chunks of at most 4 MiB; the rest is tokens."""

    keepalive_s: float = 20.0
    """When a call has received nothing for this long, the server is pinged."""

    keepalive_timeout_s: float = 20.0
    """A server that answers no ping for this long is lost, whatever time the call has left."""

    reconnect_s: float = 30.0
    """How long a call waits for a server that had answered before and was lost, within its own timeout."""

    shared_memory: bool = True
    """Take large tensors through shared memory from a server of this host and user, if it agrees."""

    padding: Padding = "keep"
    """What stands at padded positions of floating values: what the model computed there, which means nothing, or NaN.
    A `reading` block can choose otherwise."""

    @property
    def names_several(self) -> bool:
        """Whether the target can stand for several servers, among which each run is given its own."""
        place = parsed(self.target)
        return self.target.startswith("dns:") or len(place.hosts) > 1

    @property
    def is_local(self) -> bool:
        """Whether the target names this host."""
        return parsed(self.target).is_local

    @property
    def route(self) -> proxies.Route:
        """The way to the server, by the proxies that the environment names now.

        Raises:
            InvalidRequestError: a proxy was asked for that cannot be used, or not for this target.
        """
        is_encrypted = self.tls_ca is not None
        return proxies.route(self.target, is_encrypted=is_encrypted, wanted=self.proxy, environ=os.environ)

    def __post_init__(self) -> None:
        parsed(self.target)
        proxies.require_usable(self.proxy)
        self._require_sendable_token()
        if self.weights_dir is not None and "\0" in str(self.weights_dir):
            raise InvalidRequestError(f"weights_dir is {str(self.weights_dir)!r}: not a valid folder name")
        for name, shortest, longest in _TIMES:
            _require_seconds(name, getattr(self, name), shortest, longest)
        for name, least, most in _SIZES:
            _require_whole(name, getattr(self, name), least, most)
        checked_padding(self.padding)
        if self.max_bytes is not None:
            _require_whole("max_bytes", self.max_bytes, 1, None)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidRequestError(
                "a client certificate requires both tls_cert and tls_key: its file and its key file"
            )
        if self.tls_cert is not None and self.tls_ca is None:
            raise InvalidRequestError(
                'a client certificate is sent over TLS only: set tls_ca to the server\'s CA file, or to "system"'
            )

    def _require_sendable_token(self) -> None:
        if self.token is None:
            return
        if not isinstance(self.token, str) or not (self.token.isascii() and self.token.isprintable()):
            raise InvalidRequestError(
                "the token contains characters that cannot be sent in a header: perhaps a trailing line break, or "
                "non-ASCII letters"
            )
        if not self.token or self.token != self.token.strip():
            raise InvalidRequestError("the token is empty or has blanks around it, which no server accepts")

    @classmethod
    def from_env(
        cls,
        target: str | None,
        token: str | None,
        tls_ca: str | None,
        tls_cert: str | None = None,
        tls_key: str | None = None,
        *,
        proxy: str | None = None,
        weights_dir: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] = os.environ,
        **settings: Any,
    ) -> ClientConfig:
        """Arguments first, then the environment, then the defaults. An empty string says: not even from there.

        Args:
            settings: The others, which no environment has.

        Raises:
            InvalidRequestError: a certificate without its key or the other way round, or without TLS; a token that
                cannot be sent.
        """

        def chosen(argument: str | None, name: str) -> str | None:
            return (environ.get(f"TRANSPARENT_LLM_{name}") if argument is None else argument) or None

        folder = environ.get("TRANSPARENT_LLM_WEIGHTS_DIR") if weights_dir is None else os.fspath(weights_dir)
        return cls(
            weights_dir=Path(folder) if folder else None,
            target=completed(target or environ.get("TRANSPARENT_LLM_ADDRESS") or DEFAULT_TARGET),
            token=chosen(token, "TOKEN"),
            tls_ca=chosen(tls_ca, "TLS_CA"),
            tls_cert=chosen(tls_cert, "TLS_CERT"),
            tls_key=chosen(tls_key, "TLS_KEY"),
            proxy=chosen(proxies.NONE if proxy == "" else proxy, "PROXY"),
            **settings,
        )


_TIMES = (
    ("timeout_s", None, _LONGEST_S),
    ("keepalive_s", None, _LONGEST_KEEPALIVE_S),
    ("keepalive_timeout_s", None, _LONGEST_KEEPALIVE_S),
    ("reconnect_s", 0.0, _LONGEST_S),
)
"""Name, the least that is allowed (None: more than 0), the most."""

_SIZES = (
    ("cache_bytes", 0, None),
    ("read_ahead_bytes", 0, None),
    ("weights_bytes", 0, None),
    ("weights_dir_bytes", 0, None),
    ("max_message_bytes", 1, _LARGEST_MESSAGE_BYTES),
)


def _require_seconds(name: str, value: object, least: float | None, most: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)  # a NaN is in no range
    if not is_number or not (least or 0.0) <= value <= most or (least is None and value == 0):  # type: ignore[operator]
        allowed = f"{least:g} or more" if least is not None else "more than 0"
        raise InvalidRequestError(
            f"{name} is {value!r}: it must be a number of seconds, {allowed} and at most {most:g}"
        )


def _require_whole(name: str, value: object, least: int, most: int | None) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        highest = f" and at most {most}" if most is not None else ""
        none = ", or None for no limit" if name == "max_bytes" else ""
        raise InvalidRequestError(f"{name} is {value!r}: it must be a whole number, {least} or more{highest}{none}")
