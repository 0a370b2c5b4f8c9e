"""From the configuration of a model to what the registry can load."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from transparent_llm.contract import ModelInfo
from transparent_llm.description import ModelDescription
from transparent_llm_server.config.model import ModelConfig
from transparent_llm_server.config.sae import saes_of_model
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.models.loading.origin import origin_of, split_name
from transparent_llm_server.models.loading.progress import LoadProgress, reporting_to
from transparent_llm_server.models.loading.refusal import display_name
from transparent_llm_server.models.loading.size import weight_bytes
from transparent_llm_server.models.placement.placement import Placement
from transparent_llm_server.models.saes.weights import sae_bytes
from transparent_llm_server.models.serving import ServedModel
from transparent_llm_server.models.serving_contract import served_model
from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm
from transparent_llm_server.registry.slot import ModelSource

log = logging.getLogger(__name__)

Alone = Callable[[], AbstractContextManager[object]]
"""Within it, no model computes."""


def model_source(config: ServerConfig, model: ModelConfig, alone: Alone) -> ModelSource:
    """A model as its own settings and those of the server say.

    Raises:
        InvalidRequestError: settings that mean nothing, do not go together, or are about what is not here.
    """
    place = placement(config, model)
    adapter = model.adapter or config.adapter
    if adapter is not None:
        place.require_mergeable()
    saes = saes_of_model((*config.saes, *model.saes), (model.alias, *model.aliases))
    is_local = os.path.isdir(split_name(model.source)[0])

    def load(on_step: Callable[[str], None]) -> ServedModel:
        with reporting_to(LoadProgress(on_step, alone)):
            llm = TransformerLensTransparentLlm(
                model.source, revision=model.revision, adapter=adapter, saes=saes, **vars(place)
            )
        return served_model(model.alias, llm)

    known = ModelDescription(
        info=ModelInfo(model.alias, 0, 0, 0, 0, 0),
        digest="",
        dtype=place.dtype,
        device=place.device if place.device_map is None else "",
        quantization=place.quantization or "",
        revision=model.revision or "",
        detail=f"to be loaded from {'a local folder' if is_local else f'the hub ({display_name(model.source)})'}",
    )
    tells_size = is_local and place.device_map is None and place.quantization is None
    size = weight_bytes(model.source, place.dtype) if tells_size else None
    if size is not None and saes:
        size += sum(sae_bytes(folder, name) for name, (folder, *_) in saes.items())
    return ModelSource(model.alias, load, model.aliases, model.is_on_demand, size, known)


def fetch(config: ServerConfig) -> None:
    """Have the files of all models here, and load none of them.

    Raises:
        InvalidRequestError: a model that is nowhere, or that cannot be fetched.
        ModelRefusedError: files that cannot be read safely.
    """
    for model in config.models:
        log.info("%s: finding its files", model.alias)
        with reporting_to(LoadProgress(partial(log.info, "%s: %s", model.alias), nullcontext)):
            origin_of(model.source, model.revision)
            adapter = model.adapter or config.adapter
            if adapter is not None:
                origin_of(adapter, is_adapter=True)


def placement(config: ServerConfig, model: ModelConfig) -> Placement:
    """What the model's own settings say, and where they are silent those of the server.

    Raises:
        InvalidRequestError: settings that mean nothing, do not go together, or are about what is not here.
    """
    device_map = model.device_map or (config.device_map if model.device is None else None)
    is_alone = model.device is not None and device_map is None  # what is said of maps is not for this model
    return Placement(
        device=model.device or config.device,
        dtype=model.dtype or config.dtype,
        device_map=device_map,
        max_memory=model.max_memory or (None if is_alone else config.max_memory),
        offload_dir=model.offload_dir or (None if is_alone else config.offload_dir),
        quantization=model.quantization or config.quantization,
    )
