"""A GGUF file as transformers reads it, from the header that was checked.

The reader of the package `gguf` makes numpy arrays of every word of the vocabulary, and transformers opens the file
four times: that took minutes for 262,144 words. Of these words transformers wants the number here, and reads the
words themselves, for the tokenizer, in another and quicker way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from transparent_llm_server.models.loading.gguf_header import Elements, GgufHeader, GgufTensor, Setting

_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class _Field:
    """A setting: values, which of them count, and the types of the whole and of its elements."""

    parts: list[Any]
    data: list[int]
    types: list[int]


@dataclass(frozen=True)
class _Tensor:
    name: str
    tensor_type: Any
    data: np.ndarray[Any, Any]


class GgufReading:
    """What transformers uses of a `GGUFReader`."""

    def __init__(self, header: GgufHeader) -> None:
        self.fields = {key: _field(header.kinds[key], value) for key, value in header.settings.items()}
        mapped = np.memmap(header.path, mode="r", dtype=np.uint8)
        self.tensors = [_tensor(name, tensor, mapped) for name, tensor in header.tensors.items()]


_header: ContextVar[GgufHeader | None] = ContextVar("gguf_header", default=None)


@contextmanager
def reading(header: GgufHeader) -> Iterator[None]:
    """Within this block, what this thread reads of the file is read from its header."""
    _read_headers()
    token = _header.set(header)
    try:
        yield
    finally:
        _header.reset(token)


def _read_headers() -> None:
    """From here on, transformers gets its reader from here where a header was read."""
    import gguf

    original = gguf.GGUFReader
    if getattr(original, "__name__", "") == _reader_of.__name__:
        return

    def _reader(path: Any, *arguments: Any) -> Any:
        return _reader_of(path, *arguments) or original(path, *arguments)

    _reader.__name__ = _reader_of.__name__
    gguf.GGUFReader = _reader


def _reader_of(path: Any, *_: Any) -> GgufReading | None:
    header = _header.get()
    return GgufReading(header) if header is not None and str(path) == str(header.path) else None


def _field(kind: int, value: Setting) -> _Field:
    if isinstance(value, Elements):  # only how many there are
        element = np.frombuffer(b"?", np.uint8) if value.kind == _STRING else np.zeros(1)
        return _Field([element], [0] * value.count, [_ARRAY, value.kind])
    if isinstance(value, list):
        of = 6 if any(isinstance(each, float) for each in value) else 5
        return _Field([np.array([each]) for each in value], list(range(len(value))), [_ARRAY, of])
    if isinstance(value, str):
        return _Field([np.frombuffer(value.encode(), np.uint8)], [0], [_STRING])
    return _Field([np.array([value])], [0], [kind])


def _tensor(name: str, tensor: GgufTensor, mapped: np.ndarray[Any, Any]) -> _Tensor:
    from gguf import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape

    plain = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
    raw = mapped[tensor.start : tensor.start + tensor.nbytes]
    kind = GGMLQuantizationType[tensor.kind]
    if tensor.kind in plain:
        return _Tensor(name, kind, raw.view(plain[tensor.kind]).reshape(tensor.shape))
    return _Tensor(name, kind, raw.reshape(quant_shape_to_byte_shape(tensor.shape, kind)))
