"""Computing that depends on nothing but its inputs, whatever a process has set for its own purposes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import torch

from transparent_llm.runtime.forking import lock_of
from transparent_llm.runtime.plain_torch import plain_torch

_Value = TypeVar("_Value")


class _Products(Protocol):
    """Matrix products of one kind of device."""

    fp32_precision: str


@contextmanager
def standard_numerics() -> Iterator[None]:
    """Within this block models compute in full precision and without gradients, and what they make without saying a
    dtype is float32. All that computes values runs in one: this alone decides whether a graph is kept.

    Dtype and precision are the whole process's: where they are others, they are put back at the end of the last block
    that is open, unless somebody has changed them meanwhile.
    """
    with plain_torch(), torch.no_grad(), _process:  # plain_torch can leave inference mode, which turns gradients on
        yield


class _Setting(Generic[_Value]):
    def __init__(self, needed: _Value, get: Callable[[], _Value], put: Callable[[_Value], None]) -> None:
        self._needed, self._get, self._put = needed, get, put
        self._found = needed

    @property
    def is_right(self) -> bool:
        return bool(self._get() == self._needed)

    def take(self) -> None:
        self._found = self._get()
        if self._found != self._needed:
            self._put(self._needed)

    def give_back(self) -> None:
        if self._found != self._needed and self.is_right:
            self._put(self._found)


class _Process:
    """The settings, and how many blocks are open that want them so."""

    def __init__(self) -> None:
        self._settings: list[_Setting[torch.dtype] | _Setting[str]] = [
            _Setting(torch.float32, torch.get_default_dtype, torch.set_default_dtype),
            *_precisions(),
        ]
        self._lock = lock_of(self)
        self._open = 0

    def __enter__(self) -> None:
        with self._lock:
            self._open += 1
            if self._open == 1:
                for setting in self._settings:
                    setting.take()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                for setting in self._settings:
                    setting.give_back()


def _precisions() -> list[_Setting[str]]:
    """Of matrix products in float32, which can be rounded to fewer bits to be faster."""
    found: list[_Products | None] = [
        getattr(getattr(torch.backends, name, None), "matmul", None) for name in ("cuda", "mkldnn")
    ]
    products = [each for each in found if each is not None and hasattr(each, "fp32_precision")]
    if not products:  # before torch 2.9 there is one for all
        return [_Setting("highest", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)]
    return [_precision(product) for product in products]


def _precision(product: _Products) -> _Setting[str]:
    return _Setting(
        "ieee", lambda: product.fp32_precision, lambda precision: setattr(product, "fp32_precision", precision)
    )


_process = _Process()


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the type that sums and products are taken in: float32, or float64 where it has that."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
