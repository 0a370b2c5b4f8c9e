"""Weights that accelerate keeps on disk or in another memory, or that are quantized, made ready to be read.

A module that is called materializes its own weights, through the hooks that accelerate put there. Values also read
weights by themselves; between calls those of an offloaded module are placeholders without elements. Those of a
quantized one have an arithmetic of their own, which cannot cut or reshape them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from transparent_llm_server.models.placement.layout import is_offloaded
from transparent_llm_server.models.placement.quantization import dequantized, is_quantized


class MaterializedWeights:
    """Of one model. By one thread at a time, never during a forward pass: whoever ends drops what was materialized."""

    def __init__(self, hf_model: torch.nn.Module) -> None:
        self._is_quantized = any(map(is_quantized, hf_model.parameters()))
        self.is_needed = self._is_quantized or is_offloaded(hf_model)
        """Whether weights must be made ready at all: then their readers and forward passes wait for one another."""

        self.lock = threading.RLock()
        """Held by forward passes, and by whoever reads weights."""

    @contextmanager
    def __call__(self, *modules: torch.nn.Module) -> Iterator[None]:
        """Within this block the weights of these modules and of all that is in them can be read."""
        if not self.is_needed:
            yield
            return
        from accelerate.utils import align_module_device

        with self.lock, ExitStack() as stack:
            for module in modules:
                for part in module.modules():
                    stack.enter_context(align_module_device(part))
                    if self._is_quantized:
                        stack.enter_context(dequantized(part))
            yield
