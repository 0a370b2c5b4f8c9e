"""What a model on this machine will take of memory, told from its files before they are read."""

from __future__ import annotations

import torch

from transparent_llm.errors import TransparentLlmError
from transparent_llm_server.models.loading.gguf_header import read_header
from transparent_llm_server.models.loading.origin import origin_of
from transparent_llm_server.models.loading.weight_files import loaded_bytes, stored_tensors


def weight_bytes(source: str, dtype: torch.dtype) -> int | None:
    """Bytes of its weights once they are loaded as `dtype`; None where its files do not tell."""
    try:
        origin = origin_of(source)
        if origin.gguf is not None:
            return read_header(origin.path, origin.name).elements * dtype.itemsize
        return loaded_bytes(stored_tensors(origin.folder, origin.name).values(), dtype)
    except TransparentLlmError:
        return None  # loading it will say what is wrong
