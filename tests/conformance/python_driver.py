"""The driver of the Python client. See README.md beside it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sys
import threading
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from conformance.analyses import circuit_arguments
from conformance.comparisons import compared
from conformance.differentiations import differentiated
from conformance.edits import SWEPT, ObjectOf, edits_of, swept
from conformance.generations import generated, steps_written
from conformance.python_answers import (
    DIMS,
    Fields,
    dims_of,
    error_written,
    parts_written,
    plan_written,
    tensor_written,
    value_written,
)
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.circuits import CIRCUITS
from transparent_llm.errors import CancelledError, InternalError, TransparentLlmError
from transparent_llm.version import __version__
from transparent_llm.wire import dtypes, status
from transparent_llm.wire.assembler import Assembler
from transparent_llm.wire.methods import METHODS
from transparent_llm.wire.protocol_error import ProtocolError

TORCH_BY_NAME = {dtypes.name(dtype): dtype for dtype in dtypes.WIRE_BY_TORCH}


class Driver:
    """Client objects by their names, and what can be done with them."""

    def __init__(self) -> None:
        self._clients: dict[str, RemoteTransparentLlm] = {}
        self._progress: list[tuple[int, int]] = []

    def hello(self, request: Fields) -> Fields:
        return {"client": "python", "version": __version__}

    def connect(self, request: Fields) -> Fields:
        options = {"cache_bytes": 0, "read_ahead_bytes": 0, **request.get("options", {})}
        targets = options.pop("targets", None)
        self._clients[request["llm"]] = RemoteTransparentLlm(
            f"ipv4:{','.join(targets)}" if targets else request["target"],
            progress=lambda _, received, total: self._progress.append((received, total)),
            timeout_s=options.pop("timeout_s", 60),
            shared_memory=False,  # the stream is put to the test; shared memory would go past the runner's proxy
            **options,
        )
        return {}

    def copy(self, request: Fields) -> Fields:
        self._clients[request["to"]] = self._clients[request["llm"]].copy()
        return {}

    def close(self, request: Fields) -> Fields:
        self._clients.pop(request["llm"]).close()
        return {}

    def call(self, request: Fields) -> Fields:
        self._progress.clear()
        with _cancelled_after(request.get("cancel_after_s")):
            answer = self._called(self._clients[request["llm"]], request)
        if request.get("progress"):
            answer["progress"] = list(self._progress)
        return answer

    def _called(self, llm: RemoteTransparentLlm, request: Fields) -> Fields:
        method, arguments = request["method"], [_argument(value) for value in request.get("args", [])]
        slices = {axis: slice(*part) for axis, part in request.get("slices", {}).items()}
        if method in CIRCUITS:
            return _circuits(llm, method, arguments, slices)
        with llm.reading(dtype=TORCH_BY_NAME[request["dtype"]] if "dtype" in request else None, **slices):
            if method in _ASKED:
                return _ASKED[method](llm, request, self._clients.__getitem__)
            if "edits" in request:
                getattr(llm, method)(*arguments, edits=edits_of(request["edits"], self._clients.__getitem__))
                return {"value": value_written(llm, method, None)}
            return _read(llm, method, arguments)

    def time(self, request: Fields) -> Fields:
        read = partial(getattr(self._clients[request["llm"]], request["method"]), *request.get("args", []))
        return {"seconds": [timeit.timeit(read, number=1) for _ in range(request["times"])]}

    def decode(self, request: Fields) -> Fields:
        assembler, resumes = Assembler(request.get("max_bytes")), []
        for number, messages in enumerate(request["streams"]):
            if number:
                assembler.resume()
                resumes.append({"offset": assembler.received, "etag": assembler.etag})
            try:
                for message in messages:
                    assembler.add(base64.b64decode(message))
            except ProtocolError as error:
                raise InternalError(str(error)) from None
        try:
            named = assembler.tensors()
        except ProtocolError as error:
            raise InternalError(str(error)) from None
        return {"tensors": [{"name": name, **tensor_written(tensor, ())} for name, tensor in named], "resumes": resumes}

    def decode_error(self, request: Fields) -> Fields:
        return {"error": error_written(status.from_rpc_error(_FailedCall(request), "the-target"))}


def _swept(llm: RemoteTransparentLlm, request: Fields, object_of: ObjectOf) -> Fields:
    found = swept(llm, request, object_of)
    return {"parts": {name: tensor_written(value, SWEPT[name]) for name, value in found.items()}}


def _differentiated(llm: RemoteTransparentLlm, request: Fields, object_of: ObjectOf) -> Fields:
    found = differentiated(llm, request, object_of)
    return {"parts": {name: tensor_written(value, dims) for name, (value, dims) in found.items()}}


def _generated(llm: RemoteTransparentLlm, request: Fields, object_of: ObjectOf) -> Fields:
    steps = steps_written(generated(llm, request, object_of))
    return {"value": {"steps": steps, "run_id": llm.run_id()}}


def _compared(llm: RemoteTransparentLlm, request: Fields, object_of: ObjectOf) -> Fields:
    return {"value": compared(llm, request, object_of)}


_ASKED = {"sweep": _swept, "gradients": _differentiated, "generate": _generated, "compare": _compared}
"""Methods whose request has fields of its own."""


def _circuits(llm: RemoteTransparentLlm, method: str, arguments: list[Any], slices: dict[str, slice]) -> Fields:
    value = llm.read_circuits(method, *circuit_arguments(method, arguments), axes=slices)
    parts = parts_written(method, value)
    return {"tensor": parts[method]} if method in parts else {"parts": parts}


def _read(llm: RemoteTransparentLlm, method: str, arguments: list[Any]) -> Fields:
    if method == "fetch":
        reads = [tuple(read) for read in arguments[0]]
        tensors = zip(reads, llm.fetch(reads), strict=True)
        return {"tensors": [tensor_written(tensor, DIMS[read[0]]) for read, tensor in tensors]}
    if method == "fetch_parts":
        reads = [(name, *_arguments_of(name, given)) for name, *given in arguments[0]]
        return {"values": [parts_written(read[0], value) for read, value in zip(reads, llm.fetch(reads), strict=True)]}
    if method == "plan":
        return {"value": plan_written(llm.plan([(name, *_arguments_of(name, given)) for name, *given in arguments[0]]))}
    if method in METHODS and METHODS[method].is_analysis:
        (value,) = llm.fetch([(method, *_arguments_of(method, arguments))])
        parts = parts_written(method, value)
        return {"tensor": parts[method]} if method in parts else {"parts": parts}
    if method in ("to_tokens", "to_str_tokens"):
        text, add_bos = [*arguments, None][:2]
        result = getattr(llm, method)(text, add_bos=add_bos)
    else:
        result = getattr(llm, method)(*arguments)
    if method in ("to_tokens", "last"):
        return {"value": result.tolist()}
    if isinstance(result, torch.Tensor):
        return {"tensor": tensor_written(result, dims_of(method, result))}
    return {"value": value_written(llm, method, result)}


def _argument(value: Any) -> Any:
    """A tensor, or the value as it is."""
    if not isinstance(value, dict) or "data" not in value:
        return value
    flat = torch.frombuffer(bytearray(base64.b64decode(value["data"])), dtype=TORCH_BY_NAME[value["dtype"]])
    return flat.reshape(value["shape"])


def _arguments_of(method: str, given: list[Any]) -> list[Any]:
    """With those that have a name, in an object at the end, in their places."""
    row = METHODS[method]
    if not given or not isinstance(given[-1], dict):
        return given
    indices, named = given[:-1], given[-1]
    indices += [named.get(name) for name in row.arguments[len(indices) :]]
    return [*indices, *(named.get(each.name, each.default) for each in row.parameters)]


@contextlib.contextmanager
def _cancelled_after(seconds: float | None) -> Iterator[None]:
    """As by Ctrl-C."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        raise CancelledError("cancelled by the user") from None
    finally:
        timer.cancel()


class _FailedCall(grpc.RpcError):
    """As gRPC raises it."""

    def __init__(self, request: Fields) -> None:
        self._code = next(code for code in grpc.StatusCode if code.value[0] == request["code"])
        self._message, details = request["message"], request["details"]
        self._trailers = () if details is None else ((status.DETAILS_KEY, base64.b64decode(details)),)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return str(self._message)

    def trailing_metadata(self) -> Any:
        return self._trailers


def _answered(driver: Driver, request: Fields) -> Fields:
    try:
        op: Callable[[Fields], Fields] = getattr(driver, request["op"])
        return {"ok": op(request)}
    except TransparentLlmError as error:
        return {"error": error_written(error)}
    except Exception as error:
        return {
            "error": {
                "class": "DriverError",
                "reason": "",
                "message": repr(error),
                "metadata": {},
                "retry_after_s": None,
            }
        }


def main() -> None:
    """Answer line by line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has ignored for what runs beside it
    driver = Driver()
    for line in sys.stdin:
        request = {"llm": "main", **json.loads(line)}
        answer = _answered(driver, request)
        print(json.dumps({"id": request["id"], **answer}), flush=True)


if __name__ == "__main__":
    main()
