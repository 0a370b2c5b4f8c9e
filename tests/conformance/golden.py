"""The cases behind the golden vectors: written here, kept as literal bytes in vectors/ by record.py."""

from __future__ import annotations

from typing import Any

from google.rpc import error_details_pb2, status_pb2

from conformance.expected import Fields
from transparent_llm import errors
from transparent_llm.wire import status
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire._gen.tensor_pb2 import TensorChunk, TensorHeader

NAN, INF = "NaN", "Infinity"
ELEMENTS: dict[str, tuple[str, list[Any]]] = {
    "BOOL": ("0001", [0, 1]),
    "U8": ("00ff80", [0, 255, 128]),
    "I8": ("00ff807f", [0, -1, -128, 127]),
    "I16": ("0100ffff0080", [1, -1, -32768]),
    "I32": ("01000000ffffffff00000080", [1, -1, -2147483648]),
    "I64": ("0100000000000000ffffffffffffffff0000000000002000", [1, -1, 9007199254740992]),
    "F16": ("003c00bcff7b01000080007c00fc007e", [1, -1, 65504, 5.960464477539063e-08, -0.0, INF, "-Infinity", NAN]),
    "BF16": (
        "803f80bf493f7f7f01000080807f80ffc07f",
        [1, -1, 0.78515625, 3.3895313892515355e38, 9.183549615799121e-41, -0.0, INF, "-Infinity", NAN],
    ),
    "F32": (
        "0000803f000080bfffff7f7f0100000000000080db0f49400000807f0000c07f",
        [1, -1, 3.4028234663852886e38, 1.401298464324817e-45, -0.0, 3.1415927410125732, INF, NAN],
    ),
    "F64": ("000000000000f03f182d4454fb2109400000000000000080000000000000f07f", [1, 3.141592653589793, -0.0, INF]),
}
"""Of each type: elements as they lie in memory, and what they mean."""

BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}
ONE_TO_SIX = "0000803f000000400000404000008040" + "0000a0400000c040"
A_BROKEN_STREAM = {"class": "InternalError", "reason": "INTERNAL"}


def tensor_cases() -> list[Fields]:
    """Each type, and shapes that are easily got wrong."""
    cases = [
        _whole(f"elements of {dtype}", dtype, [len(values)], data, values) for dtype, (data, values) in ELEMENTS.items()
    ]
    return [
        *cases,
        _whole("a scalar", "F32", [], "0000803f", [1]),
        _whole("no elements", "F32", [2, 0, 3], "", []),
        _whole("no elements of two bytes", "BF16", [0], "", []),
        _whole("three axes", "F32", [1, 2, 3], ONE_TO_SIX, [1, 2, 3, 4, 5, 6]),
        _whole("within max_bytes", "F32", [2, 3], ONE_TO_SIX, [1, 2, 3, 4, 5, 6], max_bytes=24),
    ]


def stream_cases() -> list[Fields]:
    """Chunks, several tensors, interruptions, and what no server may send."""
    return [*_chunked(), *_resumed(), *_broken()]


def error_cases() -> list[Fields]:
    """Statuses with our details, with others, and with none."""
    return [*_detailed(), *_plain(), *_lying()]


def _header(
    name: str = "value", dtype: str = "F32", shape: Any = (2, 3), etag: str = "one", **other: Any
) -> TensorHeader:
    size = BYTES[dtype]
    for length in shape:
        size *= length
    fields = {
        "name": name,
        "dtype": tensor_pb2.Dtype.Value(f"DTYPE_{dtype}"),
        "shape": shape,
        "dims": [f"axis{i}" for i in range(len(shape))],
        "total_bytes": size,
        "etag": etag,
    }
    return TensorHeader(**{**fields, **other})


def _message(data: str = "", offset: int = 0, header: TensorHeader | None = None) -> TensorChunk:
    return TensorChunk(header=header, offset=offset, data=bytes.fromhex(data))


def _written(streams: list[list[TensorChunk]]) -> list[list[Fields]]:
    return [
        [{"is": " ".join(str(m).split()), "bytes": m.SerializeToString().hex()} for m in stream] for stream in streams
    ]


def _tensor(data: str, values: list[Any], name: str = "value", dtype: str = "F32", shape: Any = (2, 3)) -> Fields:
    return {"name": name, "dtype": dtype, "shape": list(shape), "data": data, "values": values}


def _whole(case: str, dtype: str, shape: list[int], data: str, values: list[Any], **limits: int) -> Fields:
    stream = [_message(data, header=_header(dtype=dtype, shape=shape))]
    tensor = _tensor(data, values, dtype=dtype, shape=shape)
    return {"case": case, **limits, "streams": _written([stream]), "tensors": [tensor]}


SIX = _tensor(ONE_TO_SIX, [1, 2, 3, 4, 5, 6])
PAIR = _tensor("0000803f0000c03f", [1, 1.5], name="second", shape=(2,))
HEAD, SECOND = _header(), _header("second", shape=(2,))
NONE_SUCH = _header("empty", shape=(0,))
EMPTY = _tensor("", [], name="empty", shape=(0,))


def _came(case: str, streams: list[list[TensorChunk]], tensors: list[Fields], resumes: list[tuple[int, str]]) -> Fields:
    asked = [{"offset": offset, "etag": etag} for offset, etag in resumes]
    return {"case": case, "streams": _written(streams), "tensors": tensors, "resumes": asked}


def _chunked() -> list[Fields]:
    a, b, c = ONE_TO_SIX[:14], ONE_TO_SIX[14:32], ONE_TO_SIX[32:]
    pair = PAIR["data"]
    return [
        _came("a header alone, then the data", [[_message(header=HEAD), _message(ONE_TO_SIX)]], [SIX], []),
        _came("chunks that end within elements", [[_message(a, 0, HEAD), _message(b, 7), _message(c, 16)]], [SIX], []),
        _came("an empty chunk between", [[_message(a, 0, HEAD), _message("", 7), _message(b + c, 7)]], [SIX], []),
        _came("two tensors", [[_message(ONE_TO_SIX, 0, HEAD), _message(pair, 0, SECOND)]], [SIX, PAIR], []),
        _came(
            "an empty tensor between two",
            [[_message(ONE_TO_SIX, 0, HEAD), _message(header=NONE_SUCH), _message(pair, 0, SECOND)]],
            [SIX, EMPTY, PAIR],
            [],
        ),
    ]


def _resumed() -> list[Fields]:
    a, rest = ONE_TO_SIX[:14], ONE_TO_SIX[14:]
    new, new_six = _header(etag="two"), {**SIX, "data": "00" * 24, "values": [0] * 6}
    pair, whole = PAIR["data"], _message(ONE_TO_SIX, 0, HEAD)
    return [
        _came("broken before anything arrived", [[], [whole]], [SIX], [(0, "")]),
        _came("broken after the header", [[_message(header=HEAD)], [whole]], [SIX], [(0, "one")]),
        _came("broken within an element", [[_message(a, 0, HEAD)], [_message(rest, 7, HEAD)]], [SIX], [(7, "one")]),
        _came(
            "interrupted twice",
            [[_message(a, 0, HEAD)], [_message(rest[:10], 7, HEAD)], [_message(rest[10:], 12, HEAD)]],
            [SIX],
            [(7, "one"), (12, "one")],
        ),
        _came("broken before its end was sent", [[whole], [_message("", 24, HEAD)]], [SIX], [(24, "one")]),
        _came(
            "other bits: everything begins again",
            [[_message(a, 0, HEAD)], [_message("00" * 24, 0, new)]],
            [new_six],
            [(7, "one")],
        ),
        _came(
            "other bits after two tensors had begun",
            [
                [whole, _message(pair[:8], 0, SECOND)],
                [_message("00" * 24, 0, new), _message(pair, 0, _header("second", shape=(2,), etag="two"))],
            ],
            [new_six, PAIR],
            [(28, "one")],
        ),
        _came("broken between two tensors", [[whole], [_message(pair, 0, SECOND)]], [SIX, PAIR], [(24, "one")]),
        _came(
            "broken in the second of two tensors",
            [[whole, _message(pair[:6], 0, SECOND)], [_message(pair[6:], 3, SECOND)]],
            [SIX, PAIR],
            [(27, "one")],
        ),
        _came(
            "broken after the header of the second",
            [[whole, _message(header=SECOND)], [_message(pair, 0, SECOND)]],
            [SIX, PAIR],
            [(24, "one")],
        ),
        _came(
            "an empty tensor before the break is sent again",
            [[whole, _message(header=NONE_SUCH)], [_message(header=NONE_SUCH), _message(pair, 0, SECOND)]],
            [SIX, EMPTY, PAIR],
            [(24, "one")],
        ),
    ]


def _broken() -> list[Fields]:
    whole, half = _message(ONE_TO_SIX, 0, HEAD), ONE_TO_SIX[:24]
    streams = {
        "no header": [[_message(ONE_TO_SIX)]],
        "a stream without messages": [[]],
        "a gap": [[_message(half[:14], 0, HEAD), _message(half, 12)]],
        "a piece twice": [[_message(half, 0, HEAD), _message(ONE_TO_SIX, 0)]],
        "more than was announced": [[whole, _message("00", 24)]],
        "more in one message than was announced": [[_message(ONE_TO_SIX + "00", 0, HEAD)]],
        "an end too early": [[_message(half, 0, HEAD)]],
        "a second tensor before the first is whole": [[_message(half, 0, HEAD), _message("", 0, SECOND)]],
        "bytes that shape and type do not have": [[_message(ONE_TO_SIX, 0, _header(total_bytes=23))]],
        "more axes than names": [[_message(ONE_TO_SIX, 0, _header(dims=["axis0"]))]],
        "no type": [[_message(ONE_TO_SIX, 0, _unknown_dtype(0))]],
        "a type that does not exist": [[_message(ONE_TO_SIX, 0, _unknown_dtype(99))]],
        "a shape past 64 bits": [[_message("", 0, _header(shape=(2**62, 2**62), total_bytes=0))]],
        "a size that no memory has": [[_message("", 0, _header(shape=(2**62,), total_bytes=2**62 * 4 % 2**64))]],
        "an empty tensor that no memory spans": [[_message("", 0, _header(shape=(0, 2**47, 2), total_bytes=0))]],
        "more than a process can address": [[_message("", 0, _header(shape=(2**46,)))]],
        "more axes than any value": [[_message("0000803f", 0, _header(shape=(1,) * 9))]],
        "axes without end": [[_message("", 0, _header(shape=(2**63,) * 500, total_bytes=0))]],
        "a long name": [[_message(ONE_TO_SIX, 0, _header("x" * 129))]],
        "a long name of an axis": [[_message(ONE_TO_SIX, 0, _header(dims=["axis0", "x" * 129]))]],
        "a long etag": [[_message(ONE_TO_SIX, 0, _header(etag="x" * 257))]],
        "an offset near 2^64": [[_message("", 2**64 - 1, HEAD)]],
        "an offset near 2^64 later on": [[_message(half, 0, HEAD), _message(half, 2**64 - 12)]],
        "shared memory that was not offered": [
            [TensorChunk(header=HEAD, shared=tensor_pb2.SharedPiece(slot=0, size=24))]
        ],
        "another shape under the etag of the broken stream": [
            [_message(half[:14], 0, HEAD)],
            [_message(ONE_TO_SIX[14:], 7, _header(shape=(6,)))],
        ],
        "another name under the etag of the broken stream": [
            [_message(half[:14], 0, HEAD)],
            [_message(ONE_TO_SIX[14:], 7, _header("other"))],
        ],
        "no header after a break": [[_message(half[:14], 0, HEAD)], [_message(ONE_TO_SIX[14:], 7)]],
        "another etag within a stream": [[whole, _message(PAIR["data"], 0, _header("second", shape=(2,), etag="two"))]],
        "another etag for the same tensor": [[_message(half, 0, HEAD), _message(ONE_TO_SIX, 0, _header(etag="two"))]],
    }
    cases: list[Fields] = [
        {"case": case, "streams": _written(stream), "error": A_BROKEN_STREAM} for case, stream in streams.items()
    ]
    garbage = [[{"is": "no message", "bytes": "0affffffff"}]]
    too_large = {"class": "TooLargeError", "reason": "TOO_LARGE", "metadata": {"needed": "24", "allowed": "23"}}
    return [
        *cases,
        {"case": "bytes that are not a message", "streams": garbage, "error": A_BROKEN_STREAM},
        {"case": "more than max_bytes", "max_bytes": 23, "streams": _written([[whole]]), "error": too_large},
    ]


def _unknown_dtype(number: int) -> TensorHeader:
    header = _header()
    header.dtype = number
    return header


_ERRORS: list[tuple[type[errors.TransparentLlmError], str, dict[str, str], float | None]] = [
    (errors.IndexOutOfRangeError, "INDEX_OUT_OF_RANGE", {"axis": "layer", "size": "4", "got": "9"}, None),
    (errors.InvalidRequestError, "EMPTY_INPUT", {"sentence": "1"}, None),
    (errors.InvalidRequestError, "UNKNOWN_TOKEN", {"token": "5000", "size": "1024"}, None),
    (errors.InvalidRequestError, "INVALID_DTYPE", {"got": "I64", "allowed": "F16, BF16, F32, F64"}, None),
    (errors.InvalidRequestError, "INVALID_SHAPE", {"expected": "[128]", "got": "[3]"}, None),
    (errors.InvalidRequestError, "INVALID_SLICE", {"axis": "pos"}, None),
    (errors.InvalidRequestError, "INVALID_RESUME", {"got": "30", "total_bytes": "24"}, None),
    (errors.InvalidRequestError, "MODEL_REQUIRED", {"models": "a, b"}, None),
    (errors.InvalidRequestError, "MISSING_ARGUMENT", {"axis": "layer"}, None),
    (errors.InvalidRequestError, "INVALID_REQUEST", {}, None),
    (errors.TooLargeError, "TOO_LONG", {"needed": "300", "allowed": "256"}, None),
    (errors.TooLargeError, "TOO_LARGE", {"needed": "300", "allowed": "256"}, None),
    (errors.NotFoundError, "MODEL_NOT_FOUND", {"model": "b", "models": "a"}, None),
    (errors.NotFoundError, "RUN_NOT_FOUND", {"run_id": "0123"}, None),
    (errors.NotFoundError, "MODEL_CHANGED", {"was": "01", "is": "23"}, None),
    (errors.NotFoundError, "VECTOR_NOT_FOUND", {"digest": "0123"}, None),
    (errors.BusyError, "BUSY", {}, 1.5),
    (
        errors.BusyError,
        "QUOTA_EXCEEDED",
        {"quota": "bytes_per_hour", "needed": "2", "used": "9", "allowed": "10"},
        40.0,
    ),
    (errors.CapacityError, "OUT_OF_MEMORY", {}, 0.25),
    (errors.NotSupportedError, "NOT_SUPPORTED", {"method": "ffn_out", "architecture": "X"}, None),
    (errors.UnavailableError, "LOADING", {"model": "a", "state": "loading", "seconds": "3", "detail": "x"}, 2.0),
    (errors.UnavailableError, "DRAINING", {}, None),
    (errors.CancelledError, "CANCELLED", {}, None),
    (errors.DeadlineError, "DEADLINE_EXCEEDED", {}, None),
    (errors.AuthError, "UNAUTHENTICATED", {}, None),
    (errors.AuthError, "PERMISSION_DENIED", {}, None),
    (errors.ModelRefusedError, "MODEL_REFUSED", {"attention_sum": "0.1"}, None),
    (errors.InternalError, "INTERNAL", {"incident": "abcd"}, None),
    (errors.InvalidRequestError, "A_REASON_OF_TOMORROW", {"new": "1"}, None),
]


def _detailed() -> list[Fields]:
    cases = []
    for kind, reason, metadata, retry_after_s in _ERRORS:
        error = kind(f"what {reason} says", reason=reason, metadata=metadata, retry_after_s=retry_after_s)
        sent = status.to_status(error)
        expect = {"class": kind.__name__, "reason": reason, "metadata": metadata, "message_has": [error.message]}
        cases.append(_error_case(reason, sent.code, error.message, sent, {**expect, "retry_after_s": retry_after_s}))
    return cases


def _plain() -> list[Fields]:
    by_code = {
        1: ("CancelledError", "CANCELLED"),
        2: ("InternalError", "INTERNAL"),
        3: ("InvalidRequestError", "INVALID_REQUEST"),
        4: ("DeadlineError", "DEADLINE_EXCEEDED"),
        5: ("NotFoundError", "NOT_FOUND"),
        7: ("AuthError", "UNAUTHENTICATED"),
        8: ("BusyError", "BUSY"),
        11: ("IndexOutOfRangeError", "INDEX_OUT_OF_RANGE"),
        12: ("NotSupportedError", "NOT_SUPPORTED"),
        13: ("InternalError", "INTERNAL"),
        14: ("UnavailableError", "UNAVAILABLE"),
        16: ("AuthError", "UNAUTHENTICATED"),
    }
    foreign = status_pb2.Status(code=5, message="elsewhere")
    foreign.details.add().Pack(error_details_pb2.ErrorInfo(reason="RUN_NOT_FOUND", domain="example.com"))
    cases = [
        _error_case(f"no details, code {code}", code, "words", None, _named(*kind)) for code, kind in by_code.items()
    ]
    return [
        *cases,
        _error_case("details of another domain", 5, "elsewhere", foreign, _named(*by_code[5])),
        {**_error_case("details that are none", 5, "words", None, _named(*by_code[5])), "details": "0affffffff"},
        _error_case(
            "a proxy lost the server",
            13,
            "Received RST_STREAM with error code 2",
            None,
            _named("UnavailableError", "UNAVAILABLE"),
        ),
    ]


def _lying() -> list[Fields]:
    """Delays that nobody should wait for count as none; a reason that is no constant is not taken."""
    busy, unnamed = {**_named("BusyError", "BUSY"), "retry_after_s": None}, _named("NotFoundError", "NOT_FOUND")
    delays = {
        "a delay below 0": (-1, 0),
        "a delay of a nanosecond below 0": (0, -1),
        "a delay of more than a day": (86_401, 0),
        "a delay of ages": (2**63 - 1, 999_999_999),
    }
    return [
        *(_error_case(case, 8, "words", _refusal("BUSY", *delay), busy) for case, delay in delays.items()),
        _error_case("a reason that is no constant", 5, "words", _refusal("\x1b[2J"), unnamed),
        _error_case("a reason without end", 5, "words", _refusal("A" * 65), unnamed),
    ]


def _refusal(reason: str, seconds: int | None = None, nanos: int = 0) -> status_pb2.Status:
    sent = status_pb2.Status(message="words")
    sent.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="transparent-llm"))
    if seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds, retry.retry_delay.nanos = seconds, nanos
        sent.details.add().Pack(retry)
    return sent


def _named(kind: str, reason: str) -> Fields:
    return {"class": kind, "reason": reason}


def _error_case(case: str, code: int, message: str, sent: status_pb2.Status | None, expect: Fields) -> Fields:
    details = None if sent is None else _literal(sent).hex()
    return {"case": case, "code": code, "message": message, "details": details, "error": expect}


def _literal(sent: status_pb2.Status) -> bytes:
    """The same bytes whenever it is written: maps have no order of their own."""
    for detail in sent.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            detail.Pack(info, deterministic=True)
    return bytes(sent.SerializeToString(deterministic=True))
