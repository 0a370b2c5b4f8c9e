"""A safetensors file that grows chunk by chunk: each is a file of its own in a folder beside it until all are there."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from transparent_llm.analysis.dataset.chunks import Chunk
from transparent_llm.analysis.whole_file import mode_of, replacing
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError

_RECIPE, _DIGEST, _SENTENCES = "recipe", "sentences_digest", "n_sentences"


@dataclass(frozen=True)
class Held:
    """A file of tensors that is there already."""

    metadata: Mapping[str, str]

    @classmethod
    def of(cls, path: Path) -> Held | None:
        """None: there is no such file, or it is no safetensors file."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                return cls(file.metadata() or {})
        except (SafetensorError, OSError):
            return None


class GrowingFile:
    """Takes the tensors of chunk after chunk, and knows those that it was given in another process.

    Args:
        path: Where the whole file will be; beside it is a folder PATH.part meanwhile.
        recipe: What makes the same rows of the same sentences, as JSON.

    Raises:
        InvalidRequestError: something else is there.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        mode_of(path)
        self._path, self._recipe = path, recipe
        self._folder = path.with_name(f"{path.name}.part")
        self._shards: list[Path] = []
        self._digest = hashlib.sha256()
        self._whole = Held.of(path)
        if self._whole is None and path.exists():
            raise InvalidRequestError(f"{path} is no safetensors file; remove it or name another one")
        if self._whole is not None:
            require_same(path, self._whole.metadata.get(_RECIPE, ""), recipe)

    def has(self, chunk: Chunk) -> bool:
        """Whether its rows are there.

        Raises:
            InvalidRequestError: those of other sentences are.
        """
        self._digest.update(chunk.digest.encode())
        if self._whole is not None:
            return True
        path = self._folder / f"{chunk.first:012}.safetensors"
        self._shards.append(path)
        held = Held.of(path)
        if held is None:
            return False
        require_same(self._folder, held.metadata.get(_RECIPE, ""), self._recipe)
        if held.metadata.get(_DIGEST) != chunk.digest:
            raise InvalidRequestError(
                f"{self._folder} has rows of other sentences than {chunk.first} to {chunk.stop - 1} are now; remove it "
                "or name another file"
            )
        return True

    def add(self, chunk: Chunk, tensors: Mapping[str, torch.Tensor]) -> None:
        """Its rows."""
        from safetensors.torch import save

        self._make_folder()
        data = save(dict(tensors), metadata={_RECIPE: self._recipe, _DIGEST: chunk.digest})
        with replacing(self._shards[-1]) as file:
            file.write(data)

    def finish(self, n_sentences: int) -> None:
        """All chunks are there: make one file of them, with the memory of one.

        Raises:
            InvalidRequestError: there is a whole file of other sentences.
        """
        metadata = {_RECIPE: self._recipe, _DIGEST: self._digest.hexdigest(), _SENTENCES: str(n_sentences)}
        if self._whole is not None:
            if self._whole.metadata.get(_DIGEST) != metadata[_DIGEST]:
                raise InvalidRequestError(
                    f"{self._path} has rows of {self._whole.metadata.get(_SENTENCES)} other sentences; remove it or "
                    "name another file"
                )
            return
        with replacing(self._path) as file:
            _join(self._shards, metadata, file)
        for shard in self._shards:
            shard.unlink()
        with suppress(OSError):  # somebody else's file is in it
            self._folder.rmdir()

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            is_folder = stat.S_ISDIR(os.lstat(self._folder).st_mode)
        except OSError as error:
            raise InvalidRequestError(f"cannot write {self._path}: {error}") from error
        if not is_folder:
            raise InvalidRequestError(f"cannot write {self._path}: {self._folder} is no folder; remove it")


def identity_of(llm: TransparentLlm) -> str:
    """What tells a model from all others: its digest, if it is known."""
    describe = getattr(llm, "describe", None)
    return str(describe().digest) if callable(describe) else str(llm.model_info())


def require_same(path: Path, found: str, recipe: str) -> None:
    """Raise InvalidRequestError if what is there was made in another way, naming what differs."""
    if found == recipe:
        return
    there, asked = _loaded(found), _loaded(recipe)
    differing = [f"{key} {there.get(key)!r}, not {value!r}" for key, value in asked.items() if there.get(key) != value]
    raise InvalidRequestError(
        f"{path} was made otherwise: {', '.join(differing)[:500] or 'by another version'}; remove it, name another "
        "file, or ask as before"
    )


def _loaded(recipe: str) -> dict[str, Any]:
    try:
        loaded = json.loads(recipe)
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _join(shards: list[Path], metadata: Mapping[str, str], file: BinaryIO) -> None:
    """Write the tensors of all files one after another, with a header for them."""
    from safetensors import safe_open

    kinds: dict[str, tuple[str, list[int]]] = {}
    sizes: dict[str, int] = {}
    for path in shards:
        with safe_open(path, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 - it is no mapping
                tensor = shard.get_tensor(name)
                kind, shape = kinds.setdefault(name, (shard.get_slice(name).get_dtype(), [0, *tensor.shape[1:]]))
                shape[0] += tensor.shape[0]
                sizes[name] = sizes.get(name, 0) + tensor.nbytes
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name in sorted(sizes, key=lambda name: (-_width(kinds[name][0]), name)):  # wide elements first: all are aligned
        kind, shape = kinds[name]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, start + sizes[name]]}
        start += sizes[name]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in list(header)[1:]:
        for path in shards:
            with safe_open(path, framework="pt") as shard:
                file.write(shard.get_tensor(name).contiguous().reshape(-1).view(torch.uint8).numpy())


def _width(kind: str) -> int:
    """Bits of an element, by the format's name of its type: F32, BF16, I64."""
    return int(kind.strip("ABCDEFGHIJKLMNOPQRSTUVWXYZ_").split("_")[0] or 8)
