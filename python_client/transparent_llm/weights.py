"""The output vectors of neurons, kept by the client under the model's digest: weights never change."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from transparent_llm._calls import Calls
from transparent_llm.cache import ByteLimitedCache
from transparent_llm.description import ModelDescription
from transparent_llm.wire import dtypes, slices
from transparent_llm.wire.expected import Expected
from transparent_llm.wire.frames import bytes_of
from transparent_llm.wire.methods import METHODS

log = logging.getLogger("transparent_llm")
_BLOCK_BYTES = 4 * 2**20
"""Neurons that are read one by one are read ahead in such blocks: the most that is ever sent in vain."""


class Weights:
    """Rows of W_out, in memory and perhaps on disk. Shared by a client and its copies; nobody writes to them."""

    def __init__(self, calls: Calls, max_bytes: int, folder: Path | None) -> None:
        self._calls = calls
        self._kept: ByteLimitedCache[torch.Tensor] = ByteLimitedCache(max_bytes, lambda rows: rows.nbytes)
        self._folder = folder
        self._reads: dict[tuple[str, int, int], int] = {}
        self._lock = threading.Lock()  # one download of a layer is enough for all threads

    def keeps_layer(self, model: ModelDescription, layer: int) -> bool:
        """Whether all output vectors of a layer can be kept."""
        return self._keeps(model.d_ffn[layer] * _row_bytes(model))

    def has_layer(self, model: ModelDescription, layer: int) -> bool:
        """Whether they are."""
        return self._kept.get((model.digest, layer, 0, model.d_ffn[layer])) is not None

    def rows(self, model: ModelDescription, layer: int, start: int, stop: int) -> torch.Tensor:
        """Output vectors of neurons `start` to before `stop` [n d_model], fetched once."""
        whole = self._kept.get((model.digest, layer, 0, model.d_ffn[layer]))
        if whole is not None:
            return whole[start:stop]
        key = (model.digest, layer, start, stop)
        with self._lock:
            rows = self._kept.get(key)
            if rows is None:
                rows = self._load(key) if self._folder is not None else None
                if rows is None:
                    rows = self._fetch(model, layer, start, stop)
                    self._save(key, rows)
                self._kept.put(key, rows)
        return rows

    def row_if_kept(self, model: ModelDescription, layer: int, neuron: int) -> torch.Tensor | None:
        """One output vector [d_model], if it need not be fetched, or if its neighbours are asked for one by one too."""
        if not 0 <= layer < len(model.d_ffn) or not 0 <= neuron < model.d_ffn[layer]:
            return None  # the server says what is wrong
        if self.has_layer(model, layer):
            return self.rows(model, layer, neuron, neuron + 1)[0]
        per_block = max(1, _BLOCK_BYTES // _row_bytes(model))
        block, position = divmod(neuron, per_block)
        span = (block * per_block, min((block + 1) * per_block, model.d_ffn[layer]))
        if not self._keeps((span[1] - span[0]) * _row_bytes(model)):
            return None
        key = (model.digest, layer, block)
        self._reads[key] = self._reads.get(key, 0) + 1
        return self.rows(model, layer, *span)[position] if self._reads[key] > 1 else None

    def _keeps(self, nbytes: int) -> bool:
        max_bytes = self._calls.config.max_bytes
        return self._kept.keeps(nbytes) and (max_bytes is None or nbytes <= max_bytes)

    def _fetch(self, model: ModelDescription, layer: int, start: int, stop: int) -> torch.Tensor:
        request = METHODS["neuron_outputs"].request(model.info.name, layer)
        request.model_digest = model.digest
        request.options.slices.extend(slices.to_wire({"d_ffn": slice(start, stop)}))
        sizes = {"d_ffn": stop - start, "d_model": model.info.d_model}
        expected = Expected("neuron_outputs", METHODS["neuron_outputs"].dims or (), sizes, model.dtype)
        return self._calls.tensor("NeuronOutputs", request, expected)

    def _path(self, key: tuple[str, int, int, int]) -> Path:
        digest, layer, start, stop = key
        assert self._folder is not None
        return self._folder / digest / f"layer{layer}_{start}_{stop}.safetensors"

    def _save(self, key: tuple[str, int, int, int], rows: torch.Tensor) -> None:
        """Write beside, then rename: another process sees all of it or nothing."""
        if self._folder is None:
            return
        path = self._path(key)
        beside = path.with_name(f"{path.name}.{os.getpid()}.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            save_file({"rows": rows}, str(beside), {"sha256": _checksum(rows)})
            os.replace(beside, path)
        except (OSError, SafetensorError) as error:
            log.warning("cannot keep weights in %s: %s", self._folder, error)
            with contextlib.suppress(OSError):
                beside.unlink()

    def _load(self, key: tuple[str, int, int, int]) -> torch.Tensor | None:
        """What an earlier process saved, if it is whole."""
        path = self._path(key)
        if not os.path.exists(path):  # unlike Path.exists, this never raises
            return None
        try:
            with safe_open(str(path), framework="pt") as file:
                rows: torch.Tensor = file.get_tensor("rows")
                wanted = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError) as error:
            log.warning("%s cannot be read and is fetched again: %s", path, error)
            return None
        if _checksum(rows) != wanted:
            log.warning("%s is damaged and is fetched again", path)
            return None
        return rows


def _checksum(rows: torch.Tensor) -> str:
    """Of shape, type and elements."""
    digest = hashlib.sha256(f"{tuple(rows.shape)} {rows.dtype} ".encode())
    digest.update(bytes_of(rows))
    return digest.hexdigest()


def _row_bytes(model: ModelDescription) -> int:
    dtype = model.dtype if model.dtype in dtypes.WIRE_BY_TORCH else torch.float32
    assert dtype is not None
    return model.info.d_model * dtype.itemsize
