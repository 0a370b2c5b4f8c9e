"""A client's connection: what can be asked of its server without any run."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

from transparent_llm.client.reader import Shared
from transparent_llm.client.transport.calls import Calls
from transparent_llm.contract import TransparentLlm
from transparent_llm.description import ModelDescription, ServerInfo
from transparent_llm.runtime.short_tracebacks import short_tracebacks

_Self = TypeVar("_Self", bound="Connected")


@short_tracebacks
class Connected(TransparentLlm):
    """A model that is served elsewhere: the part of `RemoteTransparentLlm` that reads no run."""

    _calls: Calls
    _shared: Shared
    _model: str

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, also of all copies."""
        self._calls.channel.close()

    def server_info(self) -> ServerInfo:
        """What the server serves and allows, and how exact its models were at load."""
        return self._shared.models.ask()

    def describe(self) -> ModelDescription:
        """Everything the server says about this object's model.

        Raises:
            NotFoundError: it serves no such model.
            InvalidRequestError: it serves several and none was named.
        """
        return self.server_info().model(self.model_info().name)

    def is_serving(self) -> bool:
        """Whether the server has loaded its models and answers calls (the standard health check)."""
        return self._calls.is_serving()
