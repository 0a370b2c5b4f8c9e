"""From the configuration of a model to what the registry can load."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from transparent_llm.contract import ModelInfo
from transparent_llm.description import ModelDescription
from transparent_llm_server.config import ServerConfig
from transparent_llm_server.model_config import ModelConfig
from transparent_llm_server.model_slot import ModelOffer
from transparent_llm_server.models.load_watch import LoadWatch, watched
from transparent_llm_server.models.served import ServedModel, served
from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm
from transparent_llm_server.models.weight_files import weight_bytes

Alone = Callable[[], AbstractContextManager[Any]]
"""Within it, no model computes."""


def model_offer(config: ServerConfig, model: ModelConfig, alone: Alone) -> ModelOffer:
    """A model as its own settings and those of the server say."""
    dtype, device = model.dtype or config.dtype, model.device or config.device

    def load(on_step: Callable[[str], None]) -> ServedModel:
        with watched(LoadWatch(on_step, alone)):
            llm = TransformerLensTransparentLlm(model.source, device=device, dtype=dtype, revision=model.revision)
        return served(model.alias, llm)

    known = ModelDescription(
        info=ModelInfo(model.alias, 0, 0, 0, 0, 0),
        digest="",
        dtype=dtype,
        device=device,
        revision=model.revision or "",
        detail=f"to be loaded from {'a local folder' if model.is_local else f'the hub ({model.source})'}",
    )
    size = weight_bytes(Path(model.source), dtype) if model.is_local else None
    return ModelOffer(model.alias, load, model.aliases, model.is_on_demand, size, known)
