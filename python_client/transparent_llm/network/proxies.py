"""Whether a connection goes through an HTTP proxy, and through which: decided here, not by gRPC.

gRPC reads `http_proxy` and its like for every target, loopback and plain text too, so that prompts and tokens would go
to another machine. docs/PROTOCOL.md has the rule, which is the same in every language.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from transparent_llm.errors import InvalidRequestError
from transparent_llm.network.target import Host, Target, host, parsed

NONE, ENVIRONMENT = "none", "environment"
"""What may be wanted other than a URL."""

_NAMING = ("grpc_proxy", "GRPC_PROXY", "https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY")
"""In the environment; the first that is set counts. Not HTTP_PROXY: in a CGI program it is a header of the caller's."""

_EXCEPTING = ("no_grpc_proxy", "NO_GRPC_PROXY", "no_proxy", "NO_PROXY")
_USUAL_PORT = 80


@dataclass(frozen=True)
class Route:
    """The way to a server."""

    target: str
    proxy: str | None = None
    """Its URL, with user and password if it wants them."""

    unused: str | None = None
    """The variable of the environment that names a proxy which is not used, unless that was said."""

    @property
    def options(self) -> list[tuple[str, str | int]]:
        """For the channel. gRPC does not look at the environment then, also not for `GRPC_ADDRESS_HTTP_PROXY`."""
        options: list[tuple[str, str | int]] = [
            ("grpc.enable_http_proxy", int(self.proxy is not None)),
            ("grpc.address_http_proxy_enabled_addresses", ""),
        ]
        return options if self.proxy is None else [*options, ("grpc.http_proxy", self.proxy)]

    @property
    def shown_proxy(self) -> str:
        """The proxy without user and password; empty if there is none."""
        return "" if self.proxy is None else f"http://{self.proxy.rpartition('@')[2].removeprefix('http://')}"

    def __str__(self) -> str:
        return self.target if self.proxy is None else f"{self.target} through the proxy {self.shown_proxy}"

    @property
    def hint(self) -> str:
        """What may help where no server answers; empty if nothing does."""
        if self.unused is None:
            return ""
        return f'; {self.unused} names a proxy, which was not used: set proxy="environment" if it leads to this server'


def require_usable(wanted: str | None) -> None:
    """Refuse what no proxy can be.

    Args:
        wanted: What the user set. None or empty: nothing.

    Raises:
        InvalidRequestError: neither "none" nor "environment" nor a URL of an HTTP proxy.
    """
    if wanted and wanted not in (NONE, ENVIRONMENT):
        _url(wanted, "proxy")


def route(target: str, *, is_encrypted: bool, wanted: str | None, environ: Mapping[str, str]) -> Route:
    """The way to a target.

    Args:
        is_encrypted: Whether TLS is spoken with the server.
        wanted: "none", "environment", or a proxy's URL. None: the environment's, for public targets by TLS alone.

    Raises:
        InvalidRequestError: a proxy was asked for that cannot be used, or not for this target.
    """
    place = parsed(target)
    if place.is_of_this_host or wanted in (NONE, ""):
        return Route(target)
    if wanted is not None and wanted != ENVIRONMENT:
        url, name = _url(wanted, "proxy"), ""
    else:
        url, name = _of_environment(environ, is_required=wanted == ENVIRONMENT)
    if not name and not url:
        return Route(target)
    if _is_excepted(place, environ):
        return Route(target)
    if wanted is None and (not is_encrypted or place.is_private or len(place.hosts) != 1 or not url):
        return Route(target, unused=name)
    if len(place.hosts) != 1:
        raise InvalidRequestError(
            f"{target} is not a single address, which a proxy requires: name one server as HOST:PORT"
        )
    return Route(target, url)


def _of_environment(environ: Mapping[str, str], *, is_required: bool) -> tuple[str, str]:
    """A proxy's URL and the variable that names it. Both are empty if none does; the URL, if it cannot be used."""
    name = next((name for name in _NAMING if name in environ), "")
    if not environ.get(name):
        return "", ""
    try:
        return _url(environ[name], name), name
    except InvalidRequestError:
        if is_required:
            raise
        return "", name


def _url(text: str, setting: str) -> str:
    """A proxy's URL with its port. Errors do not quote it, as it may hold a password."""
    wrong = InvalidRequestError(
        f"{setting} is not an HTTP proxy: write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
    )
    if not text.isascii() or not text.isprintable() or " " in text:
        raise wrong
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        port = url.port
    except ValueError:
        raise wrong from None
    if url.scheme != "http" or not url.hostname or url.path not in ("", "/") or url.query or url.fragment or port == 0:
        raise wrong
    return f"http://{url.netloc}" if port is not None else f"http://{url.netloc.rstrip(':')}:{_USUAL_PORT}"


def _is_excepted(place: Target, environ: Mapping[str, str]) -> bool:
    """Whether the environment's `no_proxy` has one of the hosts."""
    name = next((name for name in _EXCEPTING if name in environ), "")
    entries = re.split(r"[,\s]+", environ.get(name, ""))
    return any(_excepts(entry, found) for entry in entries if entry for found in place.hosts)


def _excepts(entry: str, found: Host) -> bool:
    if entry == "*":
        return True
    try:
        block = ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return _names(entry, found)
    return found.address is not None and found.address.version == block.version and found.address in block


def _names(entry: str, found: Host) -> bool:
    """A name for itself and what lies under it; gRPC also takes what merely ends like it, whatever it is told."""
    try:
        named = host(entry, entry)
    except InvalidRequestError:
        return False
    if named.address is not None:
        return named.address == found.address and named.port in (None, found.port)
    name = named.name.removeprefix("*").strip(".").lower()
    return bool(name) and found.name.rstrip(".").lower().endswith(name) and named.port in (None, found.port)
