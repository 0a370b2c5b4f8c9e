"""Several devices on a machine that has none: tensors compute on the CPU, and refuse to meet those of another device.

Importing this changes torch for the whole process, so only scripts that tests start import it. It rests on torch's way
to write a device in Python, which is experimental.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "privateuseone"
"""`torch.device(f"{NAME}:1")` is one of them."""

_setup_privateuseone_for_python_backend()
_aten = torch.ops.aten
_MOVES = {_aten.copy_.default, _aten._to_copy.default}
_MATMUL = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__}
_plain_tensor = torch.tensor


class Twin(torch.Tensor):
    """A tensor on device `index`."""

    held: torch.Tensor
    index: int

    @staticmethod
    def __new__(cls: type[Twin], held: torch.Tensor, index: int) -> Twin:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made: Twin = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), device=torch.device(NAME, index), **layout
        )
        made.held, made.index = held, index
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _MATMUL:  # which otherwise changes the shape of a product in place, unseen from here
            return _run(_aten.matmul.default, args, kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """On the CPU, if all tensors are on one device."""
    _require_one_device(func, args, kwargs)
    index = next((t.index for t in tree_flatten((args, kwargs))[0] if isinstance(t, Twin)), None)
    if func is _aten.copy_.default:
        index = args[0].index if isinstance(args[0], Twin) else None
    if kwargs.get("device") is not None:
        wanted = torch.device(kwargs["device"])
        index = (wanted.index or 0) if wanted.type == NAME else None
        kwargs = {**kwargs, "device": torch.device("cpu")}
    held_args, held_kwargs = tree_map(_held, tuple(args)), tree_map(_held, dict(kwargs))
    result = func(*held_args, **held_kwargs)
    if func._schema.is_mutable and func._schema.name.endswith("_"):
        return args[0]
    return result if index is None else tree_map(_on(index), result)


def _require_one_device(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """As CUDA does: numbers, and indices, may come from the CPU; copies may go anywhere."""
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    twins = {t.index for t in tensors if isinstance(t, Twin)}
    others = [t for t in tensors if not isinstance(t, Twin) and t.ndim]
    may_index = str(func).startswith("aten.index")
    if func not in _MOVES and (len(twins) > 1 or (twins and others and not may_index)):
        raise RuntimeError(f"{func}: tensors of {sorted(twins)} and {len(others)} of the CPU are on different devices")


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Twin) else value


def _on(index: int) -> Callable[[Any], Any]:
    return lambda value: Twin(value, index) if isinstance(value, torch.Tensor) else value


def _tensor(data: Any, *, device: Any = None, **more: Any) -> torch.Tensor:
    """`torch.tensor`, which cannot make one on such a device directly."""
    made = _plain_tensor(data, **more)
    return made if device is None else made.to(device)


torch.tensor = _tensor  # type: ignore[assignment]
_library = torch.library.Library("_", "IMPL")
_library.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")
