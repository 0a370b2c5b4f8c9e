"""What the driver of the Python client says of what came: README.md has the form."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from transparent_llm import ModelInfo, RemoteTransparentLlm
from transparent_llm.client.plan import PlannedRead
from transparent_llm.errors import TransparentLlmError
from transparent_llm.table import Table
from transparent_llm.wire import dtypes
from transparent_llm.wire.frames import bytes_of
from transparent_llm.wire.methods import METHODS

Fields = dict[str, Any]
DIMS = {**{name: method.dims for name, method in METHODS.items()}, "mask": ("batch", "pos")}


def tensor_written(tensor: torch.Tensor, dims: Any) -> Fields:
    """One, with the names of its axes."""
    return {
        "dtype": dtypes.name(tensor.dtype),
        "shape": list(tensor.shape),
        "dims": list(dims),
        "data": _base64(tensor),
        "values": _base64(tensor.to(torch.float64)),
    }


def parts_written(method: str, value: Any) -> Fields:
    """The tensors of a value by their names, or the one that it is under its method's."""
    row = METHODS[method]
    if isinstance(value, torch.Tensor):
        return {method: tensor_written(value, row.dims)}
    named = zip(row.parts, value, strict=True)
    return {part.name: tensor_written(tensor, part.dims) for part, tensor in named if tensor is not None}


def plan_written(reads: Sequence[PlannedRead]) -> list[Fields]:
    """What reads would bring, without the parts of those that are several."""
    return [
        {
            "name": read.name,
            "shape": list(read.shape),
            "dims": list(read.dims),
            "dtype": dtypes.name(read.dtype),
            "bytes": read.nbytes,
            "transfer_bytes": read.transfer_bytes,
        }
        for read in reads
    ]


def value_written(llm: RemoteTransparentLlm, method: str, result: Any) -> Any:
    """What is no tensor."""
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


def dims_of(method: str, result: torch.Tensor) -> tuple[str, ...] | None:
    """The names of the axes of what a method gave."""
    return METHODS[method].dims_of(result.ndim) if method in METHODS else DIMS[method]


def error_written(error: TransparentLlmError) -> Fields:
    """What the user of the client gets."""
    return {
        "class": type(error).__name__,
        "reason": error.reason,
        "message": error.message,
        "metadata": error.metadata,
        "retry_after_s": error.retry_after_s,
    }


def _base64(tensor: torch.Tensor) -> str:
    held = tensor.contiguous()  # as long as its memory is read
    return base64.b64encode(bytes_of(held)).decode()
