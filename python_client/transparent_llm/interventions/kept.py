"""Vectors that are kept under a name, on the server or in the local object, so that runs need not bring them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm.interventions.vector import Literal, Vector, literal
from transparent_llm.quoting import kind_of, quoted

LONGEST_NAME = 128
"""Characters of a name."""

MOST_ELEMENTS = 2**18
"""Of one vector, all its rows counted."""

_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}


@dataclass(frozen=True, eq=False)
class KeptVector(Vector):
    """Of one owner. It means its numbers: a run has the same name as with these numbers as they are."""

    name: str
    digest: str
    """SHA-256 of type, shape and numbers: see `digest_of`."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    """[d], or [n d] with a row for each position that is selected."""

    values: torch.Tensor | None = field(default=None, repr=False)
    """Its numbers, where they are here: if the server loses them, they are sent again."""


def kept(name: str, vector: Vector | torch.Tensor | Iterable[float]) -> KeptVector:
    """Numbers under a name.

    Raises:
        InvalidRequestError: a name that none can be; no vector, nor a matrix with one for each position; or numbers
            that are not finite.
        TooLargeError: too many numbers.
    """
    numbers = vector.values if isinstance(vector, KeptVector | Literal) else vector
    if numbers is None or isinstance(numbers, Vector):
        raise InvalidRequestError(f"numbers are kept, got {kind_of(vector)}: edits can use it as it is")
    if isinstance(numbers, torch.Tensor):
        require_few_elements(numbers.numel())
    made = literal(numbers)
    assert isinstance(made, Literal)
    values = made.values.contiguous()
    require_few_elements(values.numel())
    if values.dtype not in _DTYPES:
        raise InvalidRequestError(f"vectors of {values.dtype} are not kept; convert to float32")
    return KeptVector(checked_name(name), digest_of(values), values.dtype, tuple(values.shape), values)


def checked_name(name: object) -> str:
    """What a vector is to be kept under.

    Raises:
        InvalidRequestError: no text of 1 to 128 printable characters.
    """
    if not isinstance(name, str):
        raise InvalidRequestError(f"the name of a vector is a str, got {kind_of(name)}")
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidRequestError(
            f"the name of a vector has 1 to {LONGEST_NAME} printable characters, got {len(name)}: {quoted(name)}"
        )
    return name


def require_few_elements(count: int) -> None:
    """Refuse too many numbers.

    Raises:
        TooLargeError: with the numbers.
    """
    if count > MOST_ELEMENTS:
        raise TooLargeError(
            f"a vector of {count} elements, at most {MOST_ELEMENTS} are kept under one name",
            metadata={"needed": str(count), "allowed": str(MOST_ELEMENTS)},
        )


def digest_of(values: torch.Tensor) -> str:
    """SHA-256 of "DTYPE [SIZE, ...] " and the bytes, little-endian in C order, in hexadecimal digits."""
    raw = values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{_DTYPES[values.dtype]} {list(values.shape)} ".encode() + raw).hexdigest()
