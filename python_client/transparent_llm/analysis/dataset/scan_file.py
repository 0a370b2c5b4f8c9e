"""A file in which a scan of a data set keeps what it has found so far, to go on from there after an interruption."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from transparent_llm.analysis.dataset.file import require_same
from transparent_llm.analysis.dataset.top_places import TopPlaces
from transparent_llm.analysis.whole_file import mode_of, replacing
from transparent_llm.errors import InvalidRequestError

_VERSION = "1"
_FORMAT, _RECIPE, _SENTENCES, _CHECKSUM, _COUNTS = "format", "recipe", "sentences_digest", "sha256", "counts"
_LARGEST_HEADER = 2**20
_TYPES = {
    "items": torch.int64,
    "values": torch.float32,
    "sentences": torch.int64,
    "positions": torch.int64,
    "tokens": torch.int64,
    "around": torch.float32,
}


@dataclass(frozen=True)
class Scanned:
    """How far a scan has come."""

    items: tuple[int, ...]
    """Numbers of what is measured."""

    kept: TopPlaces
    n_texts: int
    n_tokens: int
    digest: str
    """Of these texts, as they were cut into chunks."""

    def require_texts(self, n_texts: int, digest: str) -> None:
        """Raises InvalidRequestError unless these are the texts that were scanned."""
        if n_texts != self.n_texts or digest != self.digest:
            raise InvalidRequestError(
                f"the file has what was found in the first {self.n_texts} texts of another data set, or of one that "
                "was cut into other chunks; remove it, name another one, or give those texts"
            )


class ScanFile:
    """One safetensors file, written anew after each chunk: it is there whole or not at all.

    Args:
        path: Of the file.
        recipe: What finds the same of the same texts, as JSON.
        most_bytes: That its tensors can have.

    Raises:
        InvalidRequestError: something else than a regular file is there.
    """

    def __init__(self, path: Path, recipe: str, most_bytes: int) -> None:
        mode_of(Path(os.path.realpath(path)))
        self.path, self._recipe, self._most_bytes = path, recipe, most_bytes

    def load(self, k: int, context: int, *, once_per_sentence: bool) -> Scanned | None:
        """What was found until an interruption; None: there is no such file yet.

        Raises:
            InvalidRequestError: it is damaged, or of another model, question or kind. Nothing is read of one that is
                larger than what can be asked for.
        """
        if not self.path.exists():
            return None
        metadata, tensors = self._read(k, 2 * context + 1)
        kept = TopPlaces(len(tensors["items"]), k, context, once_per_sentence=once_per_sentence)
        for name in ("values", "sentences", "positions", "tokens", "around"):
            setattr(kept, name, tensors[name])
        n_texts, n_tokens = json.loads(metadata[_COUNTS])
        return Scanned(tuple(tensors["items"].tolist()), kept, n_texts, n_tokens, metadata[_SENTENCES])

    def save(self, scanned: Scanned) -> None:
        """Raises InvalidRequestError where it cannot be written; what was there stays."""
        from safetensors.torch import save

        kept = scanned.kept
        tensors = {name: getattr(kept, name).contiguous() for name in list(_TYPES)[1:]}
        tensors["items"] = torch.tensor(scanned.items, dtype=torch.int64)
        metadata = {
            _FORMAT: _VERSION,
            _RECIPE: self._recipe,
            _SENTENCES: scanned.digest,
            _COUNTS: json.dumps([scanned.n_texts, scanned.n_tokens]),
        }
        metadata[_CHECKSUM] = _checksum(metadata, tensors)
        with replacing(self.path) as file:
            file.write(save(tensors, metadata=metadata))

    def _read(self, k: int, n_around: int) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
        from safetensors import SafetensorError, safe_open

        try:
            self._require_bounded()
            with safe_open(self.path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                if metadata.get(_FORMAT) != _VERSION:
                    raise InvalidRequestError(f"{self.path} holds no scan of this version; remove it or name another")
                require_same(self.path, metadata.get(_RECIPE, ""), self._recipe)
                if set(file.keys()) != set(_TYPES):
                    raise ValueError(f"it has {', '.join(sorted(file.keys()))[:200]}")
                n_items = file.get_slice("items").get_shape()[0]
                shapes = {"items": [n_items], "tokens": [n_items, k, n_around], "around": [n_items, k, n_around]}
                for name in _TYPES:
                    shape = list(file.get_slice(name).get_shape())
                    if shape != shapes.get(name, [n_items, k]):
                        raise ValueError(f"{name} is {shape}")
                tensors = {name: file.get_tensor(name).clone() for name in _TYPES}
        except (SafetensorError, OSError, ValueError, IndexError) as error:
            raise self._damaged(error) from error
        if any(tensors[name].dtype is not dtype for name, dtype in _TYPES.items()):
            raise self._damaged("a tensor has another type")
        if metadata.get(_CHECKSUM) != _checksum(metadata, tensors):
            raise self._damaged("its checksum is wrong")
        return metadata, tensors

    def _require_bounded(self) -> None:
        with open(self.path, "rb") as file:
            size, header = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
        if header > _LARGEST_HEADER or size > self._most_bytes + 8 + header:
            raise ValueError(f"it has {size:,} bytes, {header:,} of them before its data")

    def _damaged(self, why: object) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self.path} is damaged, or no scan ({why}); remove it to begin anew, or name another file"
        )


def _checksum(metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> str:
    """Of everything else that the file has."""
    said = {name: text for name, text in metadata.items() if name != _CHECKSUM}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)} ".encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()
