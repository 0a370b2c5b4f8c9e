"""What the operators of a server see of it from afar, and can have it do."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from transparent_llm.client.config import ClientConfig
from transparent_llm.client.transport.calls import Calls
from transparent_llm.description import OwnerUsage, StoredRuns
from transparent_llm.wire import requests, responses

_Self = TypeVar("_Self", bound="Administrator")
_TIMEOUT_S = 30.0


class Administrator:
    """A connection with the token of an administrator, see `--admin-tokens` of the server.

    Args:
        target: HOST:PORT or unix:PATH. None: TRANSPARENT_LLM_ADDRESS, or the default.
        token: None: TRANSPARENT_LLM_ADMIN_TOKEN. That of a user opens nothing here.
        access: `tls_ca`, `tls_cert`, `tls_key` and `proxy`, as a `RemoteTransparentLlm` takes them.

    Raises:
        InvalidRequestError: settings that do not go together.
    """

    def __init__(
        self, target: str | None = None, *, token: str | None = None, timeout_s: float = _TIMEOUT_S, **access: Any
    ) -> None:
        chosen = os.environ.get("TRANSPARENT_LLM_ADMIN_TOKEN", "") if token is None else token
        settings = {"tls_ca": None, **access}
        self._calls = Calls(ClientConfig.from_env(target, chosen, timeout_s=timeout_s, **settings))

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._calls.channel.close()

    def runs(self, owner: str = "", limit: int = 0) -> StoredRuns:
        """Runs that the server keeps, of an owner or of all, those that were read last first.

        Args:
            limit: At most so many, and at most 1000; 0: 1000.

        Raises:
            AuthError: the token is no administrator's.
            NotSupportedError: the server has no administrators.
        """
        return self._calls.unary("ListRuns", requests.stored_runs(owner, limit), responses.stored_runs)

    def owners(self) -> tuple[OwnerUsage, ...]:
        """Owners with runs kept or waiting, or who took something within the last hour, by name.

        Raises: as `runs`.
        """
        return self._calls.unary("ListOwners", requests.owners(), responses.owners)

    def drain(self) -> None:
        """Have the server end as on SIGTERM: calls under way may go on for its drain time. Returns at once.

        Raises: as `runs`.
        """
        self._calls.unary("Drain", requests.drain(), responses.drained)
