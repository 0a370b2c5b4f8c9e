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
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from conformance.edits import SWEPT, edits_of, swept
from transparent_llm import ModelInfo, RemoteTransparentLlm
from transparent_llm.errors import CancelledError, InternalError, TransparentLlmError
from transparent_llm.table import Table
from transparent_llm.version import __version__
from transparent_llm.wire import dtypes, status
from transparent_llm.wire.assembler import Assembler
from transparent_llm.wire.frames import bytes_of
from transparent_llm.wire.methods import METHODS
from transparent_llm.wire.protocol_error import ProtocolError

Fields = dict[str, Any]
DIMS = {**{name: method.dims for name, method in METHODS.items()}, "mask": ("batch", "pos")}
TORCH_BY_NAME = {dtypes.name(dtype): dtype for dtype in dtypes.WIRE_BY_TORCH}


class Driver:
    """Client objects by their names, and what can be done with them."""

    def __init__(self) -> None:
        self._clients: dict[str, RemoteTransparentLlm] = {}
        self._progress: list[tuple[int, int]] = []

    def hello(self, request: Fields) -> Fields:
        return {"client": "python", "version": __version__}

    def connect(self, request: Fields) -> Fields:
        options = request.get("options", {})
        self._clients[request["llm"]] = RemoteTransparentLlm(
            request["target"],
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
        llm, method = self._clients[request["llm"]], request["method"]
        slices = {axis: slice(*part) for axis, part in request.get("slices", {}).items()}
        dtype = TORCH_BY_NAME[request["dtype"]] if "dtype" in request else None
        self._progress.clear()
        with _cancelled_after(request.get("cancel_after_s")), llm.reading(dtype=dtype, **slices):
            arguments = [_argument(value) for value in request.get("args", [])]
            if method == "sweep":
                found = swept(llm, request, self._clients.__getitem__)
                answer = {"parts": {name: _tensor(value, SWEPT[name]) for name, value in found.items()}}
            elif "edits" in request:
                getattr(llm, method)(*arguments, edits=edits_of(request["edits"], self._clients.__getitem__))
                answer = {"value": _value(llm, method, None)}
            else:
                answer = _call(llm, method, arguments)
        if request.get("progress"):
            answer["progress"] = list(self._progress)
        return answer

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
        return {"tensors": [{"name": name, **_tensor(tensor, ())} for name, tensor in named], "resumes": resumes}

    def decode_error(self, request: Fields) -> Fields:
        return {"error": _error(status.from_rpc_error(_FailedCall(request), "the-target"))}


def _call(llm: RemoteTransparentLlm, method: str, arguments: list[Any]) -> Fields:
    if method == "fetch":
        reads = [tuple(read) for read in arguments[0]]
        tensors = zip(reads, llm.fetch(reads), strict=True)
        return {"tensors": [_tensor(tensor, DIMS[read[0]]) for read, tensor in tensors]}
    if method == "fetch_parts":
        reads = [(name, *_arguments_of(name, given)) for name, *given in arguments[0]]
        return {"values": [_parts(read[0], value) for read, value in zip(reads, llm.fetch(reads), strict=True)]}
    if method in METHODS and METHODS[method].is_analysis:
        (value,) = llm.fetch([(method, *_arguments_of(method, arguments))])
        parts = _parts(method, value)
        return {"tensor": parts[method]} if method in parts else {"parts": parts}
    if method in ("to_tokens", "to_str_tokens"):
        text, add_bos = [*arguments, None][:2]
        result = getattr(llm, method)(text, add_bos=add_bos)
    else:
        result = getattr(llm, method)(*arguments)
    if method in ("to_tokens", "last"):
        return {"value": result.tolist()}
    if isinstance(result, torch.Tensor):
        return {"tensor": _tensor(result, _dims(method, result))}
    return {"value": _value(llm, method, result)}


def _value(llm: RemoteTransparentLlm, method: str, result: Any) -> Any:
    if method in ("run", "run_tokens"):
        return {"run_id": llm.run_id()}
    if isinstance(result, Table):  # of describe_run, where texts stand in quotation marks
        return [[int(row), int(pos), int(token), text[1:-1]] for row, pos, token, text in result.rows]
    if method == "effects":
        return [asdict(effect) for effect in result]
    if isinstance(result, ModelInfo):
        return asdict(result)
    if method == "server_info":
        models = [
            {"name": model.info.name, "digest": model.digest, "n_ctx": model.n_ctx, "dtype": dtypes.name(model.dtype)}
            for model in result.models
        ]
        return {"api_version": result.api_version, "features": sorted(result.features), "models": models}
    return result


def _dims(method: str, result: torch.Tensor) -> tuple[str, ...] | None:
    return METHODS[method].dims_of(result.ndim) if method in METHODS else DIMS[method]


def _argument(value: Any) -> Any:
    """A tensor, or the value as it is."""
    if not isinstance(value, dict) or "data" not in value:
        return value
    flat = torch.frombuffer(bytearray(base64.b64decode(value["data"])), dtype=TORCH_BY_NAME[value["dtype"]])
    return flat.reshape(value["shape"])


def _tensor(tensor: torch.Tensor, dims: Any) -> Fields:
    return {
        "dtype": dtypes.name(tensor.dtype),
        "shape": list(tensor.shape),
        "dims": list(dims),
        "data": _base64(tensor),
        "values": _base64(tensor.to(torch.float64)),
    }


def _arguments_of(method: str, given: list[Any]) -> list[Any]:
    """With those that have a name, in an object at the end, in their places."""
    row = METHODS[method]
    if not given or not isinstance(given[-1], dict):
        return given
    indices, named = given[:-1], given[-1]
    indices += [named.get(name) for name in row.arguments[len(indices) :]]
    return [*indices, *(named.get(each.name, each.default) for each in row.parameters)]


def _parts(method: str, value: Any) -> Fields:
    """The tensors of a value by their names, or the one that it is under its method's."""
    row = METHODS[method]
    if isinstance(value, torch.Tensor):
        return {method: _tensor(value, row.dims)}
    named = zip(row.parts, value, strict=True)
    return {part.name: _tensor(tensor, part.dims) for part, tensor in named if tensor is not None}


def _base64(tensor: torch.Tensor) -> str:
    held = tensor.contiguous()  # as long as its memory is read
    return base64.b64encode(bytes_of(held)).decode()


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


def _error(error: TransparentLlmError) -> Fields:
    return {
        "class": type(error).__name__,
        "reason": error.reason,
        "message": error.message,
        "metadata": error.metadata,
        "retry_after_s": error.retry_after_s,
    }


def _answered(driver: Driver, request: Fields) -> Fields:
    try:
        op: Callable[[Fields], Fields] = getattr(driver, request["op"])
        return {"ok": op(request)}
    except TransparentLlmError as error:
        return {"error": _error(error)}
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
