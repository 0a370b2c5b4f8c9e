"""Element types: wire enum, torch dtype and the name that safetensors gives it, in one table."""

from __future__ import annotations

import sys

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire._gen import tensor_pb2

if sys.byteorder != "little":  # tensors travel as the bytes that lie in memory
    raise ImportError("transparent_llm requires a little-endian machine: tensors are sent little-endian, uncopied")

TORCH_BY_WIRE: dict[tensor_pb2.Dtype, torch.dtype] = {
    tensor_pb2.DTYPE_BOOL: torch.bool,
    tensor_pb2.DTYPE_U8: torch.uint8,
    tensor_pb2.DTYPE_I8: torch.int8,
    tensor_pb2.DTYPE_I16: torch.int16,
    tensor_pb2.DTYPE_I32: torch.int32,
    tensor_pb2.DTYPE_I64: torch.int64,
    tensor_pb2.DTYPE_F16: torch.float16,
    tensor_pb2.DTYPE_BF16: torch.bfloat16,
    tensor_pb2.DTYPE_F32: torch.float32,
    tensor_pb2.DTYPE_F64: torch.float64,
}
WIRE_BY_TORCH = {dtype: wire for wire, dtype in TORCH_BY_WIRE.items()}
_FLOATING = [dtype for dtype in TORCH_BY_WIRE.values() if dtype.is_floating_point]


def name(dtype: torch.dtype) -> str:
    """The safetensors name, for example `BF16`."""
    wire: str = tensor_pb2.Dtype.Name(to_wire(dtype))
    return wire.removeprefix("DTYPE_")


def to_wire(dtype: torch.dtype) -> tensor_pb2.Dtype:
    """The wire enum of a torch dtype.

    Raises:
        InvalidRequestError: the type does not travel (complex and quantised ones).
    """
    if dtype not in WIRE_BY_TORCH:
        raise InvalidRequestError(
            f"tensors of {dtype} cannot be sent; convert to one of {_names(list(WIRE_BY_TORCH))}",
            reason="INVALID_DTYPE",
            metadata={"got": str(dtype), "allowed": _names(list(WIRE_BY_TORCH))},
        )
    return WIRE_BY_TORCH[dtype]


def from_wire(wire: tensor_pb2.Dtype) -> torch.dtype:
    """The torch dtype of a wire enum.

    Raises:
        InvalidRequestError: the number is no dtype of this schema.
    """
    if wire not in TORCH_BY_WIRE:
        raise InvalidRequestError(
            f"dtype {wire} is unknown; allowed are {_names(list(WIRE_BY_TORCH))}",
            reason="INVALID_DTYPE",
            metadata={"got": str(wire), "allowed": _names(list(WIRE_BY_TORCH))},
        )
    return TORCH_BY_WIRE[wire]


def wire_dtype(wanted: torch.dtype | None, held: torch.dtype) -> torch.dtype:
    """The type in which a tensor held as `held` leaves, given what was asked for. None: as it is held.

    Raises:
        InvalidRequestError: a cast that would change what the tensor is, such as floats to integers.
    """
    if wanted is None or wanted == held:
        return held
    if held.is_floating_point and wanted.is_floating_point:
        return wanted
    allowed = _names(_FLOATING) if held.is_floating_point else name(held)
    raise InvalidRequestError(
        f"a {name(held)} tensor cannot be sent as {name(wanted)}; allowed: {allowed}",
        reason="INVALID_DTYPE",
        metadata={"got": name(wanted), "allowed": allowed},
    )


def _names(dtypes: list[torch.dtype]) -> str:
    return ", ".join(name(dtype) for dtype in dtypes)
