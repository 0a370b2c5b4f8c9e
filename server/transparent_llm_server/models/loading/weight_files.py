"""The tensors of a model's files, told from their headers before any of them is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.models.loading.folder import INDEX, WEIGHTS, cannot_load, settings_of
from transparent_llm_server.models.loading.refusal import listed, printable, refused, told

PLAIN_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types of weights that are what they say; others stand for numbers only together with scales."""

_LENGTH_BYTES, _LONGEST_HEADER_BYTES = 8, 100_000_000
"""Of the number that a file of safetensors begins with, and of the header that this is the length of."""

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
        for tensor, stored in tensors_of(folder / file, name):
            if tensor in found:
                raise refused(name, f"tensor {printable(tensor)} is both in {found[tensor].file} and in {file}")
            found[tensor] = stored
    for tensor, file in (places or {}).items():
        if tensor not in found or found[tensor].file != file:
            raise refused(name, f"tensor {printable(tensor)} is not in {file}, where {INDEX} says it is")
    _require_names(found, name)
    return found


def loaded_bytes(stored: Iterable[StoredTensor], dtype: torch.dtype) -> int:
    """Bytes of these tensors once they are loaded, floating numbers as `dtype`."""
    return sum(each.elements * dtype.itemsize if each.kind.startswith(("F", "BF")) else each.nbytes for each in stored)


def _places(folder: Path, name: str) -> dict[str, str] | None:
    """Which file each tensor is in, as the index says; None where all are in one file."""
    if (folder / WEIGHTS).exists():  # before an index, as transformers does
        return None
    index = settings_of(folder, INDEX, name)
    if index is None:
        raise InvalidRequestError(cannot_load(name, without_weights([path.name for path in folder.iterdir()])))
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise refused(name, f"{INDEX} has no weight_map {{tensor: file}}")
    if not isinstance(index.get("metadata"), dict):
        raise refused(name, f"{INDEX} has no metadata")
    for file in sorted(set(places.values())):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise refused(name, f"{INDEX} names {printable(file)}, which is not a safetensors file in this folder")
    files = sorted(set(places.values()))
    missing = [file for file in files if not (folder / file).exists()]
    if missing:
        many = f"{listed(missing)}, of which none is here" if len(missing) > 1 else f"{missing[0]}, which is missing"
        raise refused(name, f"{INDEX} names {many} ({len(missing)} of {len(files)} files): fetch what is missing")
    return places


def without_weights(names: Collection[str]) -> str:
    """What is said where none of these files can be read."""
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        return (
            f"its weights are pickles ({listed(pickles)}), which can run code when they are read; "
            f"save them as {WEIGHTS} with save_pretrained"
        )
    return f"there is no {WEIGHTS}"


def tensors_of(path: Path, name: str) -> Iterator[tuple[str, StoredTensor]]:
    """The tensors of one file of safetensors by their names.

    Raises:
        ModelRefusedError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            for tensor in file.keys():  # noqa: SIM118 - no mapping
                part = file.get_slice(tensor)
                yield tensor, StoredTensor(path.name, str(part.get_dtype()), tuple(part.get_shape()))
    except (OSError, ValueError, SafetensorError) as error:
        why = _ends_early(path) or told(error)
        raise refused(name, f"{printable(path.name)} is damaged: {why}; fetch it again") from error


def _ends_early(path: Path) -> str:
    """That it does, if its header says that there should be more of it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or _LENGTH_BYTES + header > size:
            return f"it ends within its header, after {size} bytes" if header < _LONGEST_HEADER_BYTES else ""
        try:
            held = json.loads(file.read(header)) if header < _LONGEST_HEADER_BYTES else {}
            ends = [each["data_offsets"][1] for key, each in held.items() if key != "__metadata__"]
            whole = _LENGTH_BYTES + header + max(ends, default=0)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return ""
    return f"it ends early, after {size} of {whole} bytes" if size < whole else ""


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
