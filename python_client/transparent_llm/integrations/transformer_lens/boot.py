"""`boot_transparent_llm`: from a client to a bridge."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
from transformer_lens.model_bridge.sources import build_bridge_config_from_hf
from transformer_lens.model_bridge.sources._bridge_builder import configure_tokenizer
from transformer_lens.model_bridge.sources._hf_format import determine_architecture_from_hf_config
from transformers import AutoConfig, AutoTokenizer

from transparent_llm.contract import TransparentLlm
from transparent_llm.description import ModelDescription
from transparent_llm.errors import InvalidRequestError
from transparent_llm.integrations.transformer_lens.bridge import TransparentLlmBridge
from transparent_llm.integrations.transformer_lens.driver import TransparentLlmDriver

_PROBE = "The 12 quick foxes don't wait:\n  naïve, 3.14!"


def boot_transparent_llm(llm: TransparentLlm, model_name: str | os.PathLike[str]) -> TransparentLlmBridge:
    """A bridge whose code runs here and whose model is `llm`.

    TransformerLens needs to know the architecture, and tokenizes in this process; so configuration and tokenizer are
    read here, and compared with those of the served model. No weights are.

    Args:
        llm: A client, or any other `TransparentLlm` that runs token ids. It stays the caller's: its current run is
            left alone, and so is its connection.
        model_name: A local folder or a hub name with the configuration and tokenizer of the served model.

    Raises:
        InvalidRequestError: there is no such configuration or tokenizer, or it is that of another model.
    """
    config, tokenizer = _load(model_name)
    describe = getattr(llm, "describe", None)
    description: ModelDescription | None = None if describe is None else describe()
    dtype = description.dtype if description is not None and description.dtype is not None else torch.float32
    try:
        architecture = determine_architecture_from_hf_config(config)
        cfg = build_bridge_config_from_hf(config, architecture, str(model_name), dtype)
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(cfg)
    except ValueError as error:
        raise InvalidRequestError(f"TransformerLens cannot bridge {model_name!s}: {error}") from error
    _require_same_shape(llm, description, architecture, adapter.cfg)
    tokenizer = configure_tokenizer(tokenizer, adapter.cfg)
    unsupported = {} if description is None else description.unsupported
    bridge = TransparentLlmBridge(adapter, tokenizer, TransparentLlmDriver(llm, adapter, tokenizer, unsupported))
    _require_same_tokens(llm, bridge, model_name)
    return bridge


def _load(model_name: str | os.PathLike[str]) -> tuple[Any, Any]:
    try:
        config = AutoConfig.from_pretrained(model_name, trust_remote_code=False)
        return config, AutoTokenizer.from_pretrained(model_name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise InvalidRequestError(f"no configuration and tokenizer in {model_name!s}: {first_line}") from error


def _require_same_shape(llm: TransparentLlm, description: ModelDescription | None, architecture: str, cfg: Any) -> None:
    """Refuse the configuration of another model: hooks would be of layers and heads that are not there."""
    info = llm.model_info()
    here = {name: getattr(cfg, name) for name in ("n_layers", "n_heads", "d_model", "d_vocab")}
    there = {name: getattr(info, name) for name in here}
    if description is not None and description.architecture:
        here["architecture"], there["architecture"] = architecture, description.architecture
    differing = [f"{name} is {here[name]} here and {there[name]} there" for name in here if here[name] != there[name]]
    if differing:
        raise InvalidRequestError(f"this is not the configuration of {info.name!r}: {', '.join(differing)}")


def _require_same_tokens(llm: TransparentLlm, bridge: TransparentLlmBridge, model_name: str | os.PathLike[str]) -> None:
    """Refuse the tokenizer of another model: texts would be run as other texts, and nobody would notice."""
    reader = llm.copy()
    reader.run([_PROBE])
    here, there = bridge.to_tokens(_PROBE)[0].tolist(), reader.tokens()[0].tolist()
    if here != there:
        raise InvalidRequestError(
            f"the tokenizer of {model_name!s} is not that of {llm.model_info().name!r}: it makes {here} of "
            f"{_PROBE!r}, the served model {there}"
        )
