"""The tensors of a model's files, told from their headers before any of them is read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from transparent_llm.errors import InvalidRequestError, TransparentLlmError
from transparent_llm_server.models.loading.folder import INDEX, WEIGHTS, cannot_load, require_plain, settings_of
from transparent_llm_server.models.loading.refusal import listed, printable, refused, told

PLAIN_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types of weights that are what they say; others stand for numbers only together with scales."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_WRAPPERS = {
    "module.": "DataParallel",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "checkpoint_wrapper",
    "base_model.model.": "PEFT",
}
"""What wraps a model for training puts a prefix before the names of its weights, under which nobody finds them."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file."""

    file: str
    kind: str
    """Its type as safetensors calls it: F32, BF16, I64."""

    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether its numbers are floating numbers as they stand."""
        return self.kind in PLAIN_FLOATS

    @property
    def nbytes(self) -> int:
        """What its numbers take in the file."""
        return self.elements * _width(self.kind)


def stored_tensors(folder: Path, name: str) -> dict[str, StoredTensor]:
    """Every tensor of a model by its name.

    Raises:
        InvalidRequestError: there are no weights that can be read without running code.
        ModelRefusedError: a file is missing or damaged, or the files do not agree with each other.
    """
    places = _places(folder, name)
    found: dict[str, StoredTensor] = {}
    for file in [WEIGHTS] if places is None else sorted(set(places.values())):
        for tensor, stored in _headers(folder / file, name):
            if tensor in found:
                raise refused(name, f"tensor {printable(tensor)} is both in {found[tensor].file} and in {file}")
            found[tensor] = stored
    for tensor, file in (places or {}).items():
        if tensor not in found or found[tensor].file != file:
            raise refused(name, f"tensor {printable(tensor)} is not in {file}, where {INDEX} says it is")
    _require_names(found, name)
    return found


def weight_bytes(folder: Path, dtype: torch.dtype) -> int | None:
    """Bytes of the weights in this folder once they are loaded as `dtype`; None where its files do not tell."""
    try:
        require_plain(folder, folder.name)
        stored = stored_tensors(folder, folder.name).values()
    except TransparentLlmError:
        return None  # loading it will say what is wrong
    return sum(each.elements * dtype.itemsize if each.kind.startswith(("F", "BF")) else each.nbytes for each in stored)


def _places(folder: Path, name: str) -> dict[str, str] | None:
    """Which file each tensor is in, as the index says; None where all are in one file."""
    if (folder / WEIGHTS).exists():  # before an index, as transformers does
        return None
    index = settings_of(folder, INDEX, name)
    if index is None:
        raise InvalidRequestError(cannot_load(str(folder), _without_weights(folder)))
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise refused(name, f"{INDEX} has no weight_map {{tensor: file}}")
    if not isinstance(index.get("metadata"), dict):
        raise refused(name, f"{INDEX} has no metadata")
    for file in sorted(set(places.values())):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise refused(name, f"{INDEX} names {printable(file)}, which is not a safetensors file in this folder")
        if not (folder / file).exists():
            raise refused(name, f"{INDEX} names {printable(file)}, which is missing; fetch it again")
    return places


def _without_weights(folder: Path) -> str:
    pickles = [path.name for path in folder.iterdir() if path.suffix in _PICKLES]
    if pickles:
        return (
            f"its weights are pickles ({listed(pickles)}), which can run code when they are read; "
            f"save them as {WEIGHTS} with save_pretrained"
        )
    return f"there is no {WEIGHTS}"


def _headers(path: Path, name: str) -> Iterator[tuple[str, StoredTensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            for tensor in file.keys():  # noqa: SIM118 - no mapping
                part = file.get_slice(tensor)
                yield tensor, StoredTensor(path.name, str(part.get_dtype()), tuple(part.get_shape()))
    except (OSError, ValueError, SafetensorError) as error:
        raise refused(name, f"{printable(path.name)} is damaged: {told(error)}; fetch it again") from error


def _require_names(found: Mapping[str, StoredTensor], name: str) -> None:
    if not found:
        raise refused(name, f"{WEIGHTS} holds no tensor")
    for tensor in found:
        for prefix, wrapper in _WRAPPERS.items():
            if re.search(rf"(?:^|\.){re.escape(prefix)}", tensor):
                raise refused(
                    name,
                    f"the names of its weights begin with {prefix!r} ({printable(tensor)}), as {wrapper} has them: "
                    "save the model that it wraps",
                )


def _width(kind: str) -> int:
    """Bytes of an element of a type: I64, U8, BOOL, F8_E4M3."""
    digits = re.search(r"[0-9]+", kind)
    return max(1, int(digits[0]) // 8) if digits else 1
