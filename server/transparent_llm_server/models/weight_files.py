"""What a model will take of memory, told from its files before any of it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


def weight_bytes(folder: Path, dtype: torch.dtype) -> int | None:
    """Bytes of the weights in this folder once they are loaded as `dtype`; None where its files do not tell."""
    from safetensors import SafetensorError

    try:
        return sum(_tensors_bytes(path, dtype) for path in _files(folder))
    except (OSError, ValueError, KeyError, SafetensorError):
        return None  # loading it will say what is wrong


def _files(folder: Path) -> Iterator[Path]:
    if not (folder / _INDEX).exists():
        yield folder / _SINGLE
        return
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    for name in sorted(set(index["weight_map"].values())):
        yield folder / name


def _tensors_bytes(path: Path, dtype: torch.dtype) -> int:
    """Floating weights are cast when they are loaded, others are not."""
    from safetensors import safe_open

    total = 0
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            part = file.get_slice(name)
            kind = str(part.get_dtype())
            width = dtype.itemsize if kind.startswith(("F", "BF")) else _bytes_of(kind)
            total += math.prod(part.get_shape()) * width
    return total


def _bytes_of(kind: str) -> int:
    """Of an element of a type as safetensors calls it: I64, U8, BOOL."""
    digits = "".join(character for character in kind if character.isdigit())
    return max(1, int(digits or 8) // 8)
