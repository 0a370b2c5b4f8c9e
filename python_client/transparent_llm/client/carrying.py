"""The settings of a client in a pickle, for another process: a secret only by the variable that both have it from."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any, NamedTuple

from transparent_llm.client.config import ClientConfig
from transparent_llm.errors import InvalidRequestError

_VARIABLES = {"token": "TRANSPARENT_LLM_TOKEN", "proxy": "TRANSPARENT_LLM_PROXY"}
"""Settings that can have a secret in them, and where they come from if nobody gave them."""


class FromEnvironment(NamedTuple):
    """What stands for a secret."""

    variable: str


def carried(config: ClientConfig) -> dict[str, Any]:
    """The settings without secrets.

    Raises:
        InvalidRequestError: a secret was given as an argument, so that nothing but itself tells it.
    """
    settings = {field.name: getattr(config, field.name) for field in fields(config)}
    for name, variable in _VARIABLES.items():
        if not _is_secret(name, settings[name]):
            continue
        if settings[name] != os.environ.get(variable):
            raise InvalidRequestError(
                f"this client cannot be pickled: its {name} was given as an argument, and a secret is not written into "
                f"a pickle; set {variable} instead, for this process and for the one that the client goes to"
            )
        settings[name] = FromEnvironment(variable)
    return settings


def restored(settings: dict[str, Any]) -> ClientConfig:
    """The settings with the secrets of this process.

    Raises:
        InvalidRequestError: the environment has none, or a setting can never be right.
    """
    return ClientConfig(**{name: _found(value) for name, value in settings.items()})


def _found(value: Any) -> Any:
    if not isinstance(value, FromEnvironment):
        return value
    secret = os.environ.get(value.variable)
    if not secret:
        raise InvalidRequestError(f"a client was pickled where {value.variable} is set, and here it is not: set it")
    return secret


def _is_secret(name: str, value: str | None) -> bool:
    return value is not None and (name == "token" or "@" in value)
