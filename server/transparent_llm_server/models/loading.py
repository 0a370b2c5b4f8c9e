"""Getting a Hugging Face model and its tokenizer ready: from disk, from the hub, or handed over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transparent_llm.errors import InvalidRequestError, TransparentLlmError
from transparent_llm_server.models.families import refuse_if_known_wrong
from transparent_llm_server.models.load_watch import build_alone
from transparent_llm_server.models.placement import Placement


def load_model(model_name: str, hf_model: Any, placement: Placement, revision: str | None = None) -> Any:
    """The model in eval mode with eager attention and frozen weights, where it is to be.

    Weights are read from safetensors only: the older format is a pickle, which can run code.

    Raises:
        InvalidRequestError: there is no such model, or it has no safetensors.
        ModelRefusedError: a family that is known to give wrong values.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    build_alone()
    if hf_model is None:
        try:
            config = AutoConfig.from_pretrained(model_name, revision=revision)
            refuse_if_known_wrong(config)
            hf_model = AutoModelForCausalLM.from_pretrained(
                model_name,
                revision=revision,
                dtype=placement.dtype,
                use_safetensors=True,
                attn_implementation="eager",
                **placement.loading(),
            )
        except (OSError, ValueError, ImportError) as error:
            if isinstance(error, TransparentLlmError):
                raise
            raise InvalidRequestError(_cannot_load(model_name, error)) from error
    refuse_if_known_wrong(hf_model.config)
    hf_model.config.architectures = [type(hf_model).__name__]  # absent on a model that was built in memory
    if hf_model.config._attn_implementation != "eager":
        hf_model.set_attn_implementation("eager")  # some families only warn and keep what they had
        hf_model.config._attn_implementation = "eager"
    if hasattr(hf_model, "set_experts_implementation"):
        hf_model.set_experts_implementation("eager")
    return placement.at_home(hf_model).eval().requires_grad_(False)


def load_tokenizer(model_name: str, tokenizer: Any, revision: str | None = None) -> Any:
    """The given tokenizer, or the one that lies beside the model.

    Raises:
        InvalidRequestError: there is none.
    """
    from transformers import AutoTokenizer

    if tokenizer is not None:
        return tokenizer
    try:
        return AutoTokenizer.from_pretrained(model_name, revision=revision)
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"no tokenizer for {model_name!r}: {_first_line(error)}; give tokenizer=") from error


def context_length(config: Any, fallback: int) -> int:
    """Longest input in tokens, under whichever name the family's configuration has it."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return fallback


def display_name(model_name: str) -> str:
    """A folder's own name, or the hub name as it is."""
    return Path(model_name).resolve().name if os.path.isdir(model_name) else model_name


def _cannot_load(model_name: str, error: Exception) -> str:
    where = "the folder" if os.path.isdir(model_name) else "the hub (there is no such folder here)"
    return f"cannot load model {model_name!r} from {where}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
