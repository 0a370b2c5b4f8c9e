"""Everything that can go wrong, the same for a local and for a remote model.

::

    TransparentLlmError
    +-- NotRunError            (RuntimeError)         a read before `run`
    +-- InvalidRequestError    (ValueError)           an argument that can never be right
    |   +-- TooLargeError                             longer or larger than the model or the server allows
    +-- IndexOutOfRangeError   (IndexError)           layer, head, neuron, position or batch index
    +-- NotFoundError          (LookupError)          no such model; a run that the server no longer has
    +-- BusyError              (RuntimeError)         no room now, try again after `retry_after_s`
    |   +-- CapacityError      (MemoryError)          the device ran out of memory
    +-- NotSupportedError      (NotImplementedError)  this model cannot give this value
    +-- UnavailableError       (ConnectionError)      loading, draining, unreachable or lost
    +-- DeadlineError          (TimeoutError)         not done within `timeout_s`
    +-- CancelledError                                the call was cancelled
    +-- AuthError              (PermissionError)      token missing, wrong or not allowed
    +-- ModelRefusedError      (ValueError)           a model that failed its checks at load
    +-- InternalError          (RuntimeError)         a bug in the server; quote its incident id

Each has `reason` (a constant for programs), `metadata` (the numbers behind the message, as strings) and a
message for people that says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping

from transparent_llm.quoting import shown
from transparent_llm.readable_traceback import rendered


class TransparentLlmError(Exception):
    """Base of everything this package raises on purpose."""

    default_reason = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        """The message, fit for a terminal; `message` has it as it came."""
        return shown(self.message, keeps="\n")

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks show: a bug of ours with all frames, other errors up to the user's line."""
        return rendered(self, whole=isinstance(self, InternalError))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self)._rebuild, (self.message, self.reason, self.metadata, self.retry_after_s)

    @classmethod
    def _rebuild(
        cls, message: str, reason: str, metadata: Mapping[str, str], retry_after_s: float | None
    ) -> TransparentLlmError:
        return cls(message, reason=reason, metadata=metadata, retry_after_s=retry_after_s)


class NotRunError(TransparentLlmError, RuntimeError):
    """A value of the current run was asked for before `run`."""

    default_reason = "NOT_RUN"


class InvalidRequestError(TransparentLlmError, ValueError):
    """An argument that can never be right: empty sentences, a wrong shape or dtype, an unknown token."""

    default_reason = "INVALID_REQUEST"


class TooLargeError(InvalidRequestError):
    """Longer than the model's context, or larger than the server will ever allow."""

    default_reason = "TOO_LARGE"


class IndexOutOfRangeError(TransparentLlmError, IndexError):
    """A layer, head, neuron, position or batch index outside its axis."""

    default_reason = "INDEX_OUT_OF_RANGE"


class NotFoundError(TransparentLlmError, LookupError):
    """An unknown model (MODEL_NOT_FOUND), a run that was evicted or never made (RUN_NOT_FOUND), or a vector that is not
    kept (VECTOR_NOT_FOUND)."""

    default_reason = "NOT_FOUND"


class BusyError(TransparentLlmError, RuntimeError):
    """The server has no room or no time now; `retry_after_s` says when to try again."""

    default_reason = "BUSY"


class CapacityError(BusyError, MemoryError):
    """The device ran out of memory during the call; the server goes on."""

    default_reason = "OUT_OF_MEMORY"


class NotSupportedError(TransparentLlmError, NotImplementedError):
    """The model has no such value, for example neurons in a layer without a feed-forward part."""

    default_reason = "NOT_SUPPORTED"


class UnavailableError(TransparentLlmError, ConnectionError):
    """The server is loading, draining, unreachable, or the connection was lost."""

    default_reason = "UNAVAILABLE"


class DeadlineError(TransparentLlmError, TimeoutError):
    """The call was not done within its time."""

    default_reason = "DEADLINE_EXCEEDED"


class CancelledError(TransparentLlmError):
    """The call was cancelled before it was done."""

    default_reason = "CANCELLED"


class AuthError(TransparentLlmError, PermissionError):
    """The token or certificate is missing, wrong, or not allowed to do this."""

    default_reason = "UNAUTHENTICATED"


class ModelRefusedError(TransparentLlmError, ValueError):
    """A model that failed its checks at load and is therefore not served."""

    default_reason = "MODEL_REFUSED"


class InternalError(TransparentLlmError, RuntimeError):
    """A bug in the server. `metadata["incident"]` finds it in the server's log."""

    default_reason = "INTERNAL"
