"""Errors leave as rich statuses; a bug leaves as an incident id, its traceback stays in the log."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from transparent_llm.errors import TransparentLlmError
from transparent_llm.wire import status
from transparent_llm_server import events as call
from transparent_llm_server.incidents import incident_of_call
from transparent_llm_server.rpc.interceptors.base import ContextInterceptor


class _Status(
    namedtuple("_Status", ("code", "details", "trailing_metadata")),
    grpc.Status,
):
    """The form in which grpc takes a status with details."""


class Errors(ContextInterceptor):
    """Turns exceptions of the work into the status of the call; `translate` knows those that a device makes.

    The log gets the words of an incident only with `log_prompts`, as they may quote one.
    """

    def __init__(self, translate: Callable[[BaseException], BaseException], *, log_prompts: bool = False) -> None:
        self._translate = translate
        self._log_prompts = log_prompts

    @contextmanager
    def around(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Abort the call with the error's own status."""
        try:
            yield
        except TransparentLlmError as error:
            self._abort(context, error)
        except Exception as error:
            if context.code() is not None:  # type: ignore[attr-defined]  # aborted already, on purpose
                raise
            told = self._translate(error)
            if isinstance(told, TransparentLlmError):
                self._abort(context, told)
            self._abort(context, incident_of_call(method, error, quoting=self._log_prompts))

    def _abort(self, context: grpc.ServicerContext, error: TransparentLlmError) -> None:
        if (observed := call.current.get()) is not None:
            observed.reason, observed.problem = error.reason, error.metadata.get("problem", "")
        rich = status.to_status(error)
        metadata = ((status.DETAILS_KEY, rich.SerializeToString()),)
        context.abort_with_status(_Status(status.code_of(error), rich.message, metadata))
