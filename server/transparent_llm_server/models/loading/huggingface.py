"""Getting a Hugging Face model and its tokenizer ready: from disk, from the hub, or handed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.models.families import refuse_if_known_wrong
from transparent_llm_server.models.loading.adapter import Merged, merge
from transparent_llm_server.models.loading.completeness import outline, require_exact, require_fitting, require_ready
from transparent_llm_server.models.loading.config_file import read_settings, require_held
from transparent_llm_server.models.loading.folder import TOKENIZER, settings_of
from transparent_llm_server.models.loading.gguf_file import gguf_header, gguf_model, gguf_tokenizer
from transparent_llm_server.models.loading.gguf_header import GgufHeader
from transparent_llm_server.models.loading.memory import tell_memory
from transparent_llm_server.models.loading.optional_library import import_quietly
from transparent_llm_server.models.loading.origin import Origin, origin_of
from transparent_llm_server.models.loading.progress import build_alone, quiet, step
from transparent_llm_server.models.loading.refusal import display_name, refusing
from transparent_llm_server.models.loading.vocabulary import require_vocabulary
from transparent_llm_server.models.loading.weight_files import loaded_bytes, stored_tensors
from transparent_llm_server.models.placement.placement import Placement

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Loaded", "context_length", "display_name", "load"]


@dataclass(frozen=True)
class Loaded:
    """A model in eval mode with eager attention and frozen weights, where it is to be, with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    quantization: str | None
    """How its weights were quantized, or from what they were brought back."""

    adapter: Merged | None
    """What was merged into it."""


def load(
    model_name: str,
    hf_model: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    placement: Placement,
    revision: str | None = None,
    adapter: str | None = None,
) -> Loaded:
    """What is given, and what is not given from files.

    Weights are read from safetensors or GGUF only: the older format is a pickle, which can run code. No code that lies
    beside a model is run.

    Raises:
        InvalidRequestError: there is no such model, tokenizer or adapter, or none that can be read.
        ModelRefusedError: a family that is known to give wrong values, files that are damaged, or files that are not
            exactly those of the model.
    """
    import_quietly()
    build_alone()
    if adapter is not None:
        placement.require_mergeable()
    step("finding files")
    is_given = hf_model is not None and tokenizer is not None
    origin = None if is_given else origin_of(model_name, revision, with_weights=hf_model is None)
    adapted = None if adapter is None else origin_of(adapter, is_adapter=True)
    header = None if origin is None or origin.gguf is None else gguf_header(origin)
    if tokenizer is None and origin is not None:
        step("reading the tokenizer")
        tokenizer = load_tokenizer(origin, header)
    step("reading weights")
    quantization = placement.quantization
    if hf_model is not None:
        require_ready(hf_model)
    elif origin is not None and header is not None:
        hf_model, quantization = gguf_model(origin, header, placement)
    elif origin is not None:
        hf_model = _from_files(origin, placement)
    assert hf_model is not None
    assert tokenizer is not None
    _require_eager(hf_model)
    merged = None if adapted is None else merge(hf_model, adapted)
    placed = placement.place(hf_model).eval().requires_grad_(False)
    return Loaded(placed, tokenizer, quantization, merged)


def load_tokenizer(origin: Origin, header: GgufHeader | None) -> PreTrainedTokenizerBase:
    """The tokenizer that lies beside the model.

    Raises:
        InvalidRequestError: there is none.
        ModelRefusedError: its files are damaged.
    """
    tokenizer = _tokenizer(origin) if header is None else gguf_tokenizer(origin, header)
    require_vocabulary(tokenizer, origin.name)
    return tokenizer


def context_length(config: PretrainedConfig, fallback: int) -> int:
    """Longest input in tokens, under whichever name the family's configuration has it."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return fallback


def _require_eager(hf_model: PreTrainedModel) -> None:
    refuse_if_known_wrong(hf_model.config)
    hf_model.config.architectures = [type(hf_model).__name__]  # absent on a model that was built in memory
    if hf_model.config._attn_implementation != "eager":
        hf_model.set_attn_implementation("eager")  # some families only warn and keep what they had
        hf_model.config._attn_implementation = "eager"
    if hasattr(hf_model, "set_experts_implementation"):
        hf_model.set_experts_implementation("eager")


def _tokenizer(origin: Origin) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    read_settings(origin.folder, origin.name)

    def why(words: str) -> str:
        settings_of(origin.folder, TOKENIZER, origin.name)  # is JSON, or what is said of it says more
        return f"no tokenizer for {origin.name!r}: {words}"

    with refusing(why, InvalidRequestError):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(origin.folder, trust_remote_code=False)
    return tokenizer


def _from_files(origin: Origin, placement: Placement) -> PreTrainedModel:
    """What the files hold, all of it and nothing else; each of them is looked at before it is read."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder, name = origin.folder, origin.name
    settings = read_settings(folder, name)
    stored = stored_tensors(folder, name)
    require_held(settings, len(stored), sum(tensor.nbytes * 2 for tensor in stored.values()), name)
    if placement.quantization is None and placement.device_map is None:
        tell_memory(loaded_bytes(stored.values(), placement.dtype), name)
    with refusing(lambda words: f"{name!r} is not served: its config.json cannot be read: {words}"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        refuse_if_known_wrong(config)
    require_fitting(stored, outline(config, name), config, name)
    with refusing(lambda words: f"{name!r} is not served: it cannot be loaded: {words}"), quiet():
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
