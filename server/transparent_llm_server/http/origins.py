"""Which pages may call: those that this server sent, asked for under a name that is its own.

A page of somebody else must not use a model that this machine can reach, neither by calling it nor by a name of its own
that it has pointed at this address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from transparent_llm_server.http.request import Request


class Origins:
    """Knows the names of this server: any address, localhost, and some more."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name.lower().rstrip(".") for name in names}

    def why_not_asked(self, request: Request) -> str:
        """Why a request is not for this server; empty if it is."""
        host = request.headers.get("host", "")
        if self._is_ours(_name_of(host)):
            return ""
        return f"this server is not known as {host!r}; its operator can add a name with --page-host"

    def why_no_call(self, request: Request) -> str:
        """Why a request may not make a call; empty if it may. Only browsers say which page theirs is from."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return f"pages of {origin!r} may not call {host!r}: only the page that this server sends may"
        if request.headers.get("sec-fetch-site", "") == "cross-site":
            return "pages of other sites may not call"
        return ""

    def _is_ours(self, name: str) -> bool:
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name_of(host: str) -> str:
    """Of HOST or HOST:PORT, in small letters, an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
