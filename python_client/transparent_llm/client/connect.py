"""`connect`: a client that has spoken to its server."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import ParamSpec

from transparent_llm.client.remote import RemoteTransparentLlm
from transparent_llm.description import ServerInfo
from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import shown
from transparent_llm.runtime.short_tracebacks import short_traceback
from transparent_llm.version import API_VERSION

_Arguments = ParamSpec("_Arguments")
_Made = Callable[_Arguments, RemoteTransparentLlm]


def _takes(made: _Made[_Arguments]) -> Callable[[Callable[..., RemoteTransparentLlm]], _Made[_Arguments]]:
    """The decorated function takes these arguments: so that each is written once, and editors, type checkers and
    notebooks show them for both."""

    def decorate(function: Callable[..., RemoteTransparentLlm]) -> _Made[_Arguments]:
        taken = inspect.signature(made).replace(return_annotation="RemoteTransparentLlm")
        function.__signature__ = taken  # type: ignore[attr-defined]  # what inspect.signature looks for first
        return function

    return decorate


@short_traceback
@_takes(RemoteTransparentLlm)
def connect(target: str | None = None, **options: object) -> RemoteTransparentLlm:
    """A client that has spoken to its server: reachable, of a known API version, with the wanted model.

    It takes the arguments of `RemoteTransparentLlm`, which explains them.

    Raises:
        UnavailableError: no server answers there, or it is still loading.
        NotFoundError: it does not serve the model that was named.
    """
    llm = RemoteTransparentLlm(target, **options)  # type: ignore[arg-type]  # checked where connect is called
    try:
        info = llm.server_info()
        _compare_versions(info)
        names = [name for model in info.models for name in (model.info.name, *model.aliases)]
        if options.get("model") and options["model"] not in names:
            llm.model_info()  # the server's own words on what it serves
    except BaseException:
        llm.close()
        raise
    return llm


def _compare_versions(info: ServerInfo) -> None:
    """Warn, once for a place in the code, when the server speaks another version than this client."""
    theirs, ours, told = _version(info.api_version), _version(API_VERSION), shown(info.api_version)
    if theirs[0] != ours[0]:
        message = f"server speaks API {told}, this client {API_VERSION}: calls may fail; install matching versions"
        warnings.warn(message, stacklevel=4)
    elif theirs < ours:
        message = f"server speaks API {told}, older than this client's {API_VERSION}: new calls will fail"
        warnings.warn(message, stacklevel=4)


def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        raise InvalidRequestError(
            f"the server's API version {text!r} is not a version; is this a Transparent LLM server?"
        ) from None
