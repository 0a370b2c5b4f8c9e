"""Getting a Hugging Face model and its tokenizer ready: from disk, from the hub, or handed over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.models.families import refuse_if_known_wrong
from transparent_llm_server.models.loading.completeness import outline, require_exact, require_fitting, require_ready
from transparent_llm_server.models.loading.config_file import read_settings, require_held
from transparent_llm_server.models.loading.folder import model_folder
from transparent_llm_server.models.loading.optional_library import import_quietly
from transparent_llm_server.models.loading.progress import build_alone
from transparent_llm_server.models.loading.refusal import display_name, refusing
from transparent_llm_server.models.loading.vocabulary import require_vocabulary
from transparent_llm_server.models.loading.weight_files import stored_tensors
from transparent_llm_server.models.placement.placement import Placement

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["context_length", "display_name", "load_model", "load_tokenizer"]


def load_model(
    model_name: str, hf_model: PreTrainedModel | None, placement: Placement, revision: str | None = None
) -> PreTrainedModel:
    """The model in eval mode with eager attention and frozen weights, where it is to be.

    Weights are read from safetensors only: the older format is a pickle, which can run code. No code that lies beside a
    model is run.

    Raises:
        InvalidRequestError: there is no such model, or it has no safetensors.
        ModelRefusedError: a family that is known to give wrong values, files that are damaged, or files that are not
            exactly those of the model.
    """
    import_quietly()
    build_alone()
    if hf_model is None:
        hf_model = _from_files(model_name, placement, revision)
    else:
        require_ready(hf_model)
    refuse_if_known_wrong(hf_model.config)
    hf_model.config.architectures = [type(hf_model).__name__]  # absent on a model that was built in memory
    if hf_model.config._attn_implementation != "eager":
        hf_model.set_attn_implementation("eager")  # some families only warn and keep what they had
        hf_model.config._attn_implementation = "eager"
    if hasattr(hf_model, "set_experts_implementation"):
        hf_model.set_experts_implementation("eager")
    return placement.place(hf_model).eval().requires_grad_(False)


def load_tokenizer(
    model_name: str, tokenizer: PreTrainedTokenizerBase | None, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """The given tokenizer, or the one that lies beside the model.

    Raises:
        InvalidRequestError: there is none.
        ModelRefusedError: its folder holds something that cannot be read safely.
    """
    from transformers import AutoTokenizer

    if tokenizer is not None:
        return tokenizer
    folder, name = model_folder(model_name, revision, with_weights=False), display_name(model_name)
    read_settings(folder, name)
    with refusing(lambda words: f"no tokenizer for {name!r}: {words}; give tokenizer=", InvalidRequestError):
        tokenizer = AutoTokenizer.from_pretrained(model_name, revision=revision, trust_remote_code=False)
    require_vocabulary(tokenizer, name)
    return tokenizer


def context_length(config: PretrainedConfig, fallback: int) -> int:
    """Longest input in tokens, under whichever name the family's configuration has it."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return fallback


def _from_files(model_name: str, placement: Placement, revision: str | None) -> PreTrainedModel:
    """What the files hold, all of it and nothing else; each of them is looked at before it is read."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder, name = model_folder(model_name, revision, with_weights=True), display_name(model_name)
    settings = read_settings(folder, name)
    stored = stored_tensors(folder, name)
    require_held(settings, len(stored), sum(tensor.nbytes * 2 for tensor in stored.values()), name)
    with refusing(lambda words: f"{name!r} is not served: its config.json cannot be read: {words}"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        refuse_if_known_wrong(config)
    require_fitting(stored, outline(config, name), config, name)
    with refusing(lambda words: f"{name!r} is not served: it cannot be loaded: {words}"), _without_report():
        hf_model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=placement.dtype,
            use_safetensors=True,
            attn_implementation="eager",
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused here, with their names
            **placement.load_options(),
        )
    require_exact(hf_model, info, stored, name)
    return hf_model


@contextmanager
def _without_report() -> Iterator[None]:
    """Transformers' own table of what is missing says that it may be; here it is refused in one sentence."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
