"""What a request asks for beyond its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from transparent_llm.wire import dtypes, slices
from transparent_llm.wire._gen import tensor_pb2


def allows_factors(request: Any) -> bool:
    """Whether a request can be answered with the factors of its value."""
    return bool(request.options.encoding == tensor_pb2.ENCODING_FACTORED)


def fill(request: Any, axes: Mapping[str, slice], dtype: torch.dtype | None, *, factored: bool = False) -> None:
    """Set the options of a request: parts of axes, element type, whether factors will do."""
    if axes:
        request.options.slices.extend(slices.to_wire(axes))
    if dtype is not None:
        request.options.dtype = dtypes.to_wire(dtype)
    if factored:
        request.options.encoding = tensor_pb2.ENCODING_FACTORED
