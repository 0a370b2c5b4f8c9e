"""Errors on the wire: which status they travel under, and that they arrive as what they were."""

from __future__ import annotations

import ast
import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import example, given
from hypothesis import strategies as st

import transparent_llm
import transparent_llm_server
from transparent_llm import errors
from transparent_llm.wire._gen import errors_pb2
from transparent_llm.wire.status import DETAILS_KEY, DOMAIN, code_of, from_rpc_error, to_status

Code = grpc.StatusCode
Kind = type[errors.TransparentLlmError]
TARGET = "example.org:50051"
PREFIX = "ERROR_REASON_"
SCHEMA_REASONS = {name.removeprefix(PREFIX) for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name} - {
    "UNSPECIFIED"
}

TABLE: list[tuple[Kind, str, grpc.StatusCode]] = [
    (errors.NotRunError, "NOT_RUN", Code.FAILED_PRECONDITION),
    (errors.IndexOutOfRangeError, "INDEX_OUT_OF_RANGE", Code.OUT_OF_RANGE),
    (errors.InvalidRequestError, "EMPTY_INPUT", Code.INVALID_ARGUMENT),
    (errors.InvalidRequestError, "UNKNOWN_TOKEN", Code.INVALID_ARGUMENT),
    (errors.InvalidRequestError, "INVALID_DTYPE", Code.INVALID_ARGUMENT),
    (errors.InvalidRequestError, "INVALID_SHAPE", Code.INVALID_ARGUMENT),
    (errors.InvalidRequestError, "INVALID_SLICE", Code.INVALID_ARGUMENT),
    (errors.InvalidRequestError, "INVALID_RESUME", Code.INVALID_ARGUMENT),
    (errors.InvalidRequestError, "MODEL_REQUIRED", Code.INVALID_ARGUMENT),
    (errors.InvalidRequestError, "INVALID_REQUEST", Code.INVALID_ARGUMENT),
    (errors.InvalidRequestError, "MISSING_ARGUMENT", Code.INVALID_ARGUMENT),
    (errors.TooLargeError, "TOO_LONG", Code.INVALID_ARGUMENT),
    (errors.TooLargeError, "TOO_LARGE", Code.INVALID_ARGUMENT),
    (errors.NotFoundError, "MODEL_NOT_FOUND", Code.NOT_FOUND),
    (errors.NotFoundError, "RUN_NOT_FOUND", Code.NOT_FOUND),
    (errors.NotFoundError, "MODEL_CHANGED", Code.NOT_FOUND),
    (errors.NotFoundError, "VECTOR_NOT_FOUND", Code.NOT_FOUND),
    (errors.BusyError, "BUSY", Code.RESOURCE_EXHAUSTED),
    (errors.BusyError, "QUOTA_EXCEEDED", Code.RESOURCE_EXHAUSTED),
    (errors.CapacityError, "OUT_OF_MEMORY", Code.RESOURCE_EXHAUSTED),
    (errors.NotSupportedError, "NOT_SUPPORTED", Code.UNIMPLEMENTED),
    (errors.UnavailableError, "LOADING", Code.UNAVAILABLE),
    (errors.UnavailableError, "DRAINING", Code.UNAVAILABLE),
    (errors.UnavailableError, "UNAVAILABLE", Code.UNAVAILABLE),
    (errors.DeadlineError, "DEADLINE_EXCEEDED", Code.DEADLINE_EXCEEDED),
    (errors.CancelledError, "CANCELLED", Code.CANCELLED),
    (errors.AuthError, "UNAUTHENTICATED", Code.UNAUTHENTICATED),
    (errors.AuthError, "PERMISSION_DENIED", Code.PERMISSION_DENIED),
    (errors.ModelRefusedError, "MODEL_REFUSED", Code.FAILED_PRECONDITION),
    (errors.InternalError, "INTERNAL", Code.INTERNAL),
]
BUILTIN_BASES: dict[Kind, type[Exception]] = {
    errors.NotRunError: RuntimeError,
    errors.InvalidRequestError: ValueError,
    errors.TooLargeError: ValueError,
    errors.IndexOutOfRangeError: IndexError,
    errors.NotFoundError: LookupError,
    errors.BusyError: RuntimeError,
    errors.CapacityError: MemoryError,
    errors.NotSupportedError: NotImplementedError,
    errors.UnavailableError: ConnectionError,
    errors.DeadlineError: TimeoutError,
    errors.AuthError: PermissionError,
    errors.ModelRefusedError: ValueError,
    errors.InternalError: RuntimeError,
}
EVERY_KIND = list(dict.fromkeys(kind for kind, _, _ in TABLE))
every_row = pytest.mark.parametrize(("kind", "reason", "code"), TABLE, ids=lambda value: getattr(value, "name", value))
every_kind = pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.__name__)


class FailedCall(grpc.RpcError):
    """What grpc raises in a client."""

    def __init__(
        self, code: grpc.StatusCode, details: str | None, metadata: tuple[tuple[str, object], ...] | None
    ) -> None:
        super().__init__()
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._metadata


def arrived(error: errors.TransparentLlmError) -> errors.TransparentLlmError:
    """The error after it travelled."""
    trailing = (("server", "x"), (DETAILS_KEY, to_status(error).SerializeToString()))
    return from_rpc_error(FailedCall(code_of(error), error.message, trailing), TARGET)


def plain(code: grpc.StatusCode, details: str | None = "some words") -> errors.TransparentLlmError:
    """What a failure becomes that says no more than its status."""
    return from_rpc_error(FailedCall(code, details, None), TARGET)


def contents(error: errors.TransparentLlmError) -> tuple[object, ...]:
    return type(error), error.message, str(error), error.reason, error.metadata, error.retry_after_s


def detail(status: status_pb2.Status, kind: type[Message]) -> Message | None:
    """The detail of a kind in a status, if it has one."""
    for packed in status.details:
        unpacked = kind()
        if packed.Unpack(unpacked):
            return unpacked
    return None


# Every class and reason


def subclasses(kind: Kind) -> Iterator[Kind]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def test_the_table_has_every_error_class() -> None:
    assert set(EVERY_KIND) == set(subclasses(errors.TransparentLlmError))


def test_the_table_has_every_reason_of_the_schema() -> None:
    assert {reason for _, reason, _ in TABLE} >= SCHEMA_REASONS


@every_row
def test_an_error_travels_under_its_status(kind: Kind, reason: str, code: grpc.StatusCode) -> None:
    error = kind("words", reason=reason)
    assert code_of(error) is code
    assert to_status(error).code == code.value[0]
    assert to_status(error).message == "words"


@every_row
def test_an_error_arrives_as_what_it_was(kind: Kind, reason: str, code: grpc.StatusCode) -> None:
    error = kind("Wörter, 文字", reason=reason, metadata={"axis": "layer", "got": "12"}, retry_after_s=1.5)
    assert contents(arrived(error)) == contents(error)


@every_kind
def test_an_error_with_nothing_but_a_message_arrives_as_what_it_was(kind: Kind) -> None:
    assert contents(arrived(kind("words"))) == contents(kind("words"))


@every_kind
def test_an_error_can_be_pickled(kind: Kind) -> None:
    error = kind("words", reason="SOME_REASON", metadata={"a": "b"}, retry_after_s=0.25)
    assert contents(pickle.loads(pickle.dumps(error))) == contents(error)
    assert contents(copy.copy(error)) == contents(error)


@every_kind
def test_an_error_is_a_python_error_of_its_kind_too(kind: Kind) -> None:
    builtin = BUILTIN_BASES.get(kind, errors.TransparentLlmError)
    assert issubclass(kind, builtin)
    with pytest.raises(builtin, match=r"^words$"):
        raise arrived(kind("words"))


def test_an_error_of_no_special_kind_arrives_as_internal() -> None:
    got = arrived(errors.TransparentLlmError("words"))
    assert contents(got) == contents(errors.InternalError("words", reason="UNKNOWN"))


def test_an_error_keeps_its_own_copy_of_the_metadata() -> None:
    metadata = {"a": "b"}
    error = errors.BusyError("words", metadata=metadata)
    metadata.clear()
    assert error.metadata == {"a": "b"}


@given(st.integers(0, 3_600_000))
@example(1001)  # 1.001 * 1000 is a little less than 1001
def test_a_time_to_come_back_arrives_to_the_millisecond(milliseconds: int) -> None:
    error = errors.BusyError("words", retry_after_s=milliseconds / 1000)
    assert arrived(error).retry_after_s == milliseconds / 1000


# Details for clients in other languages


def test_every_status_carries_error_info() -> None:
    status = to_status(errors.InvalidRequestError("words", reason="INVALID_DTYPE", metadata={"got": "F8"}))
    expected = error_details_pb2.ErrorInfo(reason="INVALID_DTYPE", domain="transparent-llm", metadata={"got": "F8"})
    assert detail(status, error_details_pb2.ErrorInfo) == expected
    assert len(status.details) == 1


def test_a_time_to_come_back_travels_as_retry_info() -> None:
    status = to_status(errors.BusyError("words", retry_after_s=1.25))
    expected = error_details_pb2.RetryInfo()
    expected.retry_delay.FromMilliseconds(1250)
    assert detail(status, error_details_pb2.RetryInfo) == expected


@pytest.mark.parametrize(
    ("metadata", "resource"),
    [({"run_id": "ab12"}, ("run", "ab12")), ({"model": "gpt2", "models": "a, b"}, ("model", "gpt2"))],
    ids=["run", "model"],
)
def test_what_was_not_found_travels_as_resource_info(metadata: dict[str, str], resource: tuple[str, str]) -> None:
    status = to_status(errors.NotFoundError("words", metadata=metadata))
    kind, name = resource
    expected = error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name, description="words")
    assert detail(status, error_details_pb2.ResourceInfo) == expected


@pytest.mark.parametrize("kind", [errors.InvalidRequestError, errors.IndexOutOfRangeError])
def test_a_wrong_axis_travels_as_bad_request(kind: Kind) -> None:
    status = to_status(kind("words", metadata={"axis": "layer"}))
    expected = error_details_pb2.BadRequest()
    expected.field_violations.add(field="layer", description="words")
    assert detail(status, error_details_pb2.BadRequest) == expected


def test_a_status_fits_into_the_metadata_that_grpc_accepts_whatever_a_client_asked_for() -> None:
    name = "x" * 5000
    error = errors.NotFoundError(f"there is no model {name!r}", reason="MODEL_NOT_FOUND", metadata={"model": name})
    assert to_status(error).ByteSize() < 8192  # grpc-core's soft limit for all metadata of a call


# Statuses that say no more than themselves: from grpc itself, a proxy, or another server


@pytest.mark.parametrize(
    ("code", "kind", "reason", "message"),
    [
        (
            Code.UNAVAILABLE,
            errors.UnavailableError,
            "UNAVAILABLE",
            f"no server answers at {TARGET} (some words); is it running, and is the address right?",
        ),
        (
            Code.DEADLINE_EXCEEDED,
            errors.DeadlineError,
            "DEADLINE_EXCEEDED",
            f"{TARGET} did not answer within the time allowed (some words); raise timeout_s if the work is long",
        ),
        (
            Code.UNIMPLEMENTED,
            errors.NotSupportedError,
            "NOT_SUPPORTED",
            f"the server at {TARGET} does not know this method (some words); is it older than this client?",
        ),
        (Code.CANCELLED, errors.CancelledError, "CANCELLED", f"CANCELLED from {TARGET}: some words"),
        (Code.UNAUTHENTICATED, errors.AuthError, "UNAUTHENTICATED", f"UNAUTHENTICATED from {TARGET}: some words"),
        (Code.PERMISSION_DENIED, errors.AuthError, "UNAUTHENTICATED", f"PERMISSION_DENIED from {TARGET}: some words"),
        (Code.UNKNOWN, errors.InternalError, "INTERNAL", f"UNKNOWN from {TARGET}: some words"),
        (Code.INTERNAL, errors.InternalError, "INTERNAL", f"INTERNAL from {TARGET}: some words"),
        (Code.DATA_LOSS, errors.InternalError, "INTERNAL", f"DATA_LOSS from {TARGET}: some words"),
        (Code.NOT_FOUND, errors.NotFoundError, "NOT_FOUND", f"NOT_FOUND from {TARGET}: some words"),
        (Code.RESOURCE_EXHAUSTED, errors.BusyError, "BUSY", f"RESOURCE_EXHAUSTED from {TARGET}: some words"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_plain_status_names_the_target(code: grpc.StatusCode, kind: Kind, reason: str, message: str) -> None:
    expected = kind(message, reason=reason, metadata={"status": code.name, "target": TARGET})
    assert contents(plain(code)) == contents(expected)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
def test_every_plain_status_becomes_an_error_that_names_the_target(code: grpc.StatusCode) -> None:
    assert TARGET in plain(code, details=None).message


def test_a_stream_that_a_proxy_reset_is_a_lost_connection() -> None:
    got = plain(Code.INTERNAL, "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))")
    assert isinstance(got, errors.UnavailableError)
    assert got.reason == "UNAVAILABLE"
    assert got.message == (
        f"{TARGET} broke off the call (Stream removed (RST_STREAM (Received RST_STREAM with error code 2))); "
        "has a proxy lost the server behind it?"
    )


@pytest.mark.parametrize(
    "details",
    [
        "SERVER: Received message larger than max (5242893 vs. 4194304)",
        "CLIENT: Sent message larger than max (52428813 vs. 16777216)",
    ],
)
def test_a_message_that_grpc_finds_too_large_is_no_reason_to_try_again(details: str) -> None:
    assert type(plain(Code.RESOURCE_EXHAUSTED, details)) is errors.TooLargeError


@pytest.mark.parametrize("value", [b"\xff\xff\xff", b"", "text"], ids=["garbage", "empty", "text"])
def test_details_that_cannot_be_read_leave_the_status(value: object) -> None:
    got = from_rpc_error(FailedCall(Code.UNAVAILABLE, "some words", ((DETAILS_KEY, value),)), TARGET)
    assert isinstance(got, errors.UnavailableError)


def test_details_without_error_info_keep_the_status_and_its_words() -> None:
    status = status_pb2.Status(code=Code.NOT_FOUND.value[0], message="words")
    got = from_rpc_error(FailedCall(Code.NOT_FOUND, "words", ((DETAILS_KEY, status.SerializeToString()),)), TARGET)
    assert isinstance(got, errors.NotFoundError)
    assert got.message == f"NOT_FOUND from {TARGET}: words"


def test_the_reasons_of_another_service_are_not_taken_for_ours() -> None:
    info = error_details_pb2.ErrorInfo(reason="TOO_LARGE", domain="proxy.example.org")
    status = status_pb2.Status(code=Code.INVALID_ARGUMENT.value[0], message="words")
    status.details.add().Pack(info)
    trailing = ((DETAILS_KEY, status.SerializeToString()),)
    got = from_rpc_error(FailedCall(Code.INVALID_ARGUMENT, "words", trailing), TARGET)
    assert type(got) is errors.InvalidRequestError


def test_a_reason_from_a_newer_server_is_kept() -> None:
    info = error_details_pb2.ErrorInfo(reason="NEW_REASON", domain=DOMAIN)
    status = status_pb2.Status(code=Code.INVALID_ARGUMENT.value[0], message="words")
    status.details.add().Pack(info)
    trailing = ((DETAILS_KEY, status.SerializeToString()),)
    got = from_rpc_error(FailedCall(Code.INVALID_ARGUMENT, "words", trailing), TARGET)
    assert contents(got) == contents(errors.InvalidRequestError("words", reason="NEW_REASON"))


# Reasons in the code


def product_calls() -> Iterator[ast.Call]:
    """Every call expression in the product's own code."""
    for package in (transparent_llm, transparent_llm_server):
        assert package.__file__ is not None
        for path in Path(package.__file__).parent.rglob("*.py"):
            if "_gen" not in path.parts:
                yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def reason_of(call: ast.Call) -> str | None:
    """The reason of the error that a call makes: the one written there, else that of its class."""
    written = next((keyword.value for keyword in call.keywords if keyword.arg == "reason"), None)
    if isinstance(written, ast.Constant):
        return str(written.value)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    default: str | None = getattr(getattr(errors, name, None), "default_reason", None)
    return default if written is None else None


REASONS_IN_USE = sorted({reason for call in product_calls() if (reason := reason_of(call)) is not None})


def test_the_search_for_reasons_finds_written_and_implied_ones() -> None:
    assert {"RUN_NOT_FOUND", "OUT_OF_MEMORY", "NOT_RUN", "INVALID_RESUME"} <= set(REASONS_IN_USE)


@pytest.mark.parametrize("reason", REASONS_IN_USE)
def test_a_reason_in_use_is_in_the_schema(reason: str) -> None:
    assert reason in SCHEMA_REASONS
