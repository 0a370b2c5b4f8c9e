"""Errors as google.rpc.Status and back. The only place that knows which error has which status code."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from transparent_llm import errors
from transparent_llm.wire._gen import errors_pb2

DOMAIN = "transparent-llm"
DETAILS_KEY = "grpc-status-details-bin"
REASONS = frozenset(name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys())  # noqa: SIM118
"""Those of errors.proto. A newer or an older peer, or another program, may send others."""

_LONGEST_MESSAGE, _LONGEST_VALUE = 500, 150  # bytes; the message goes three times, once percent-encoded
_LONGEST_RETRY_S = 3600.0
_LONGEST_DELAY_S = 86_400.0
"""That a server can ask for."""

_REASON = re.compile("[A-Z0-9_]{1,64}")
_TOO_LARGE = ("larger than max", "metadata size exceeds")
_STREAM_RESET = "RST_STREAM"
"""What gRPC says, as INTERNAL, of a stream that a proxy broke off because it lost the server behind it."""

_CODES: tuple[tuple[type[errors.TransparentLlmError], grpc.StatusCode], ...] = (
    # Subclasses stand before their bases.
    (errors.NotRunError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ModelRefusedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.IndexOutOfRangeError, grpc.StatusCode.OUT_OF_RANGE),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.NotSupportedError, grpc.StatusCode.UNIMPLEMENTED),
    (errors.UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (errors.DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.CancelledError, grpc.StatusCode.CANCELLED),
    (errors.AuthError, grpc.StatusCode.UNAUTHENTICATED),
    (errors.InternalError, grpc.StatusCode.INTERNAL),
)

_BY_REASON: dict[str, type[errors.TransparentLlmError]] = {
    "TOO_LONG": errors.TooLargeError,
    "TOO_LARGE": errors.TooLargeError,
    "OUT_OF_MEMORY": errors.CapacityError,
    "MODEL_REFUSED": errors.ModelRefusedError,
}
_BY_CODE: dict[grpc.StatusCode, type[errors.TransparentLlmError]] = {
    **{code: kind for kind, code in reversed(_CODES) if kind is not errors.ModelRefusedError},
    grpc.StatusCode.PERMISSION_DENIED: errors.AuthError,
}


_NOT_TRUSTED = "its certificate was not accepted"
_TLS_FAILURES = (
    ("certificate has expired", f"{_NOT_TRUSTED}, as it has expired; its operator must renew it"),
    ("certificate is not yet valid", f"{_NOT_TRUSTED}, as it is not yet valid; is this machine's clock right?"),
    ("CERTIFICATE_VERIFY_FAILED", f"{_NOT_TRUSTED}: no authority in tls_ca has signed it"),
    ("Hostname Verification Check failed", f"{_NOT_TRUSTED}: it was issued for a name other than the target's"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS; leave out tls_ca, or turn on TLS there"),
    (
        "failed to connect .*(Socket closed|Connection reset|Broken pipe)",
        "it closed the connection at once; is it up, and does it require TLS (tls_ca) or another client certificate "
        "(tls_cert, tls_key)?",
    ),
)
"""What gRPC says of a handshake, and what that means for the user."""


def code_of(error: errors.TransparentLlmError) -> grpc.StatusCode:
    """The status code that an error travels under."""
    if error.reason == "PERMISSION_DENIED":
        return grpc.StatusCode.PERMISSION_DENIED
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def to_status(error: errors.TransparentLlmError) -> status_pb2.Status:
    """The error as google.rpc.Status with ErrorInfo and what else helps: RetryInfo, ResourceInfo, BadRequest."""
    message = _truncated(error.message, _LONGEST_MESSAGE)
    metadata = {key: _truncated(value, _LONGEST_VALUE) for key, value in error.metadata.items()}
    status = status_pb2.Status(code=code_of(error).value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status.details.add().Pack(info)
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(min(error.retry_after_s, _LONGEST_RETRY_S) * 1000))
        status.details.add().Pack(retry)
    if isinstance(error, errors.NotFoundError):
        kind = "run" if "run_id" in metadata else "model"
        name = metadata.get("run_id") or metadata.get("model", "")
        resource = error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name, description=message)
        status.details.add().Pack(resource)
    if isinstance(error, errors.InvalidRequestError | errors.IndexOutOfRangeError) and "axis" in metadata:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=metadata["axis"], description=message)
        status.details.add().Pack(bad)
    return status


def from_rpc_error(error: grpc.RpcError, target: str, hint: str = "") -> errors.TransparentLlmError:
    """The exception that a failed call raises; `target` is named where the server could not speak for itself, and
    `hint` ends what is said where none answers."""
    code, details = error.code(), error.details() or ""
    status = _rich_status(error.trailing_metadata() or ())
    if status is not None:
        return _from_status(status, code)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and any(words in details for words in _TOO_LARGE):
        return errors.TooLargeError(f"a message was too large for {target}: {details}; send less at once")
    kind = _BY_CODE.get(code, errors.InternalError)
    if _was_reset(code, details):
        kind = errors.UnavailableError
    reason = "NOT_SUPPORTED" if code is grpc.StatusCode.UNIMPLEMENTED else kind.default_reason
    message = _plain_message(code, details, target)
    if kind is errors.UnavailableError:
        message += hint
    return kind(message, reason=reason, metadata={"status": code.name, "target": target})


def _from_status(status: status_pb2.Status, code: grpc.StatusCode) -> errors.TransparentLlmError:
    info = next(info for info in _unpacked(status, error_details_pb2.ErrorInfo) if info.domain == DOMAIN)
    retries = _unpacked(status, error_details_pb2.RetryInfo)
    retry_after_s = _seconds(retries[0].retry_delay) if retries else None
    kind = _BY_REASON.get(info.reason) or _BY_CODE.get(code, errors.InternalError)
    reason = info.reason if _REASON.fullmatch(info.reason) else None
    return kind(status.message, reason=reason, metadata=dict(info.metadata), retry_after_s=retry_after_s)


def _seconds(delay: Any) -> float | None:
    """A time to wait; None where it is none, or longer than anybody waits."""
    milliseconds: int = delay.seconds * 1000 + delay.nanos // 10**6
    return milliseconds / 1000 if 0 <= milliseconds <= _LONGEST_DELAY_S * 1000 else None


def _rich_status(metadata: Iterable[Any]) -> status_pb2.Status | None:
    """The details of a failed call, if they are there, can be read, and are ours."""
    value = next((value for key, value in metadata if key == DETAILS_KEY), None)
    if not isinstance(value, bytes):
        return None
    try:
        status: status_pb2.Status = status_pb2.Status.FromString(value)
    except DecodeError:
        return None
    infos = _unpacked(status, error_details_pb2.ErrorInfo)
    return status if any(info.domain == DOMAIN for info in infos) else None


def _unpacked(status: status_pb2.Status, kind: Any) -> list[Any]:
    """The details of this kind, as far as they can be read."""
    found = []
    for detail in status.details:
        message = kind()
        with contextlib.suppress(DecodeError):
            if detail.Unpack(message):
                found.append(message)
    return found


def _truncated(text: str, longest: int) -> str:
    """Text that a client sent comes back in errors; gRPC limits what fits into the metadata of a call."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= longest else raw[: longest - 3].decode("utf-8", "ignore") + "..."


def _was_reset(code: grpc.StatusCode, details: str) -> bool:
    return code is grpc.StatusCode.INTERNAL and _STREAM_RESET in details


def _plain_message(code: grpc.StatusCode, details: str, target: str) -> str:
    if code is grpc.StatusCode.UNAVAILABLE:
        for said, meaning in _TLS_FAILURES:
            if re.search(said, details):
                return f"no connection to {target}: {meaning} ({details})"
        return f"no server answers at {target} ({details}); is it running, and is the address right?"
    if _was_reset(code, details):
        return f"{target} broke off the call ({details}); has a proxy lost the server behind it?"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{target} did not answer within the time allowed ({details}); raise timeout_s if the work is long"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server at {target} does not know this method ({details}); is it older than this client?"
    return f"{code.name} from {target}: {details}"
