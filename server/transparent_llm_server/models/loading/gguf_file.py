"""A model from a GGUF file: all that the file holds, dequantised, or a refusal."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server.models.families import refuse_if_known_wrong
from transparent_llm_server.models.loading.completeness import outline, require_exact
from transparent_llm_server.models.loading.config_file import require_held, require_sizes
from transparent_llm_server.models.loading.gguf_header import GgufHeader, read_header
from transparent_llm_server.models.loading.gguf_reading import GgufReading, reading
from transparent_llm_server.models.loading.gguf_settings import require_same_settings
from transparent_llm_server.models.loading.memory import require_memory
from transparent_llm_server.models.loading.origin import Origin
from transparent_llm_server.models.loading.progress import quiet
from transparent_llm_server.models.loading.refusal import listed, printable, refusing
from transparent_llm_server.models.loading.weight_files import StoredTensor
from transparent_llm_server.models.placement.placement import Placement

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_NO_LANGUAGE_MODELS = frozenset({"t5", "umt5", "mamba"})
_OTHER_WAY = frozenset({"lfm2"})
"""Transformers reads it in a way that may fetch kernels, which are code."""

_SPELLED = {"qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe", "gpt_oss": "gpt-oss", "minimax_m2": "minimax-m2"}
"""What llama.cpp calls what transformers spells otherwise."""

_ROPE_FREQUENCIES = "rope_freqs.weight"
"""Factors of frequencies, which transformers leaves out: where all are 1 that does no harm."""


def readable_architectures() -> list[str]:
    """What llama.cpp calls the architectures that can be read from GGUF files."""
    from transformers.integrations import GGUF_CONFIG_MAPPING

    left_out = {"general", "tokenizer"} | _NO_LANGUAGE_MODELS | _OTHER_WAY
    return sorted(_SPELLED.get(name, name) for name in GGUF_CONFIG_MAPPING if name not in left_out)


def gguf_header(origin: Origin) -> GgufHeader:
    """What the file says, of an architecture that can be read.

    Raises:
        InvalidRequestError: a package is missing.
        ModelRefusedError: the file is damaged, or of an architecture or a type that cannot be read.
    """
    header, readable = read_header(origin.path, origin.name), readable_architectures()
    if header.architecture not in readable:
        raise ModelRefusedError(
            f"{origin.name!r} is not served: its architecture is {printable(header.architecture)[:60]!r}; of GGUF "
            f"files, transformers reads {', '.join(readable)}; serve it from its safetensors files",
            metadata={"architecture": printable(header.architecture)[:60]},
        )
    _require_types(header, origin.name)
    return header


def gguf_tokenizer(origin: Origin, header: GgufHeader) -> PreTrainedTokenizerBase:
    """The tokenizer that is in the file.

    Raises:
        InvalidRequestError: there is none that can be read.
        ModelRefusedError: it puts other tokens before a text than the file says.
    """
    from transformers import AutoTokenizer

    with refusing(lambda words: f"no tokenizer for {origin.name!r}: {words}", InvalidRequestError), reading(header):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            origin.folder, gguf_file=origin.gguf, trust_remote_code=False
        )
    begins = header.settings.get("tokenizer.ggml.bos_token_id")
    if header.settings.get("tokenizer.ggml.add_bos_token") is True and list(tokenizer("a")["input_ids"])[:1] != [
        begins
    ]:
        raise ModelRefusedError(
            f"{origin.name!r} is not served: by its file every text begins with token {begins}, and the tokenizer that "
            "transformers makes of it does not put it there; serve the model from its safetensors files"
        )
    return tokenizer


def gguf_model(origin: Origin, header: GgufHeader, placement: Placement) -> tuple[PreTrainedModel, str]:
    """What the file holds, in floating numbers, and from what these were made, in words.

    Raises:
        InvalidRequestError: it is to be placed in a way that was never seen with GGUF files.
        ModelRefusedError: the file is damaged, or transformers makes another model of it.
        TooLargeError: there is no memory for it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.quantization_config import GgufConfig

    name = origin.name
    _require_plain_placement(placement, name)
    require_memory(header.elements * placement.dtype.itemsize, _largest(header), placement.device, name)
    with reading(header):
        with refusing(lambda words: f"{name!r} is not served: no configuration can be made of it: {words}"):
            config = AutoConfig.from_pretrained(origin.folder, gguf_file=origin.gguf, trust_remote_code=False)
        refuse_if_known_wrong(config)
        require_sizes(config.to_dict(), name)
        require_held(config.to_dict(), len(header.tensors), header.elements, name)
        require_same_settings(header, config, name)
        stored = _stored(header, config, name)
        with refusing(lambda words: f"{name!r} is not served: it cannot be loaded: {words}"), quiet():
            hf_model, info = AutoModelForCausalLM.from_pretrained(
                origin.folder,
                gguf_file=origin.gguf,
                config=config,
                dtype=placement.dtype,
                quantization_config=GgufConfig(dequantize=True),  # and no kernels, which would be fetched
                attn_implementation="eager",
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused here, with their names
            )
    require_exact(hf_model, info, stored, name)
    return hf_model, f"gguf {header.quantization}, dequantised"


def _require_plain_placement(placement: Placement, name: str) -> None:
    for setting in ("quantization", "device_map"):
        if getattr(placement, setting) is not None:
            raise InvalidRequestError(
                f"{setting} together with a GGUF file ({name}) has not been shown to be correct; leave it out, or "
                "serve the model from its safetensors files"
            )


def _require_types(header: GgufHeader, name: str) -> None:
    """Each type is tried on one block."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    for kind in sorted({tensor.kind for tensor in header.tensors.values()}):
        number = GGMLQuantizationType[kind]
        plain = {"F32": np.float32, "F16": np.float16}
        try:
            dequantize(np.zeros(GGML_QUANT_SIZES[number][1], np.uint8).view(plain.get(kind, np.uint8)), number)
        except (NotImplementedError, ValueError, KeyError) as error:
            raise ModelRefusedError(
                f"{name!r} is not served: it holds tensors of type {kind}, which the package gguf cannot turn into "
                "floating numbers",
                metadata={"dtype": kind},
            ) from error


def _stored(header: GgufHeader, config: PretrainedConfig, name: str) -> dict[str, StoredTensor]:
    """The model's own names of what the file holds, after each was found a place and its size compared."""
    model = outline(config, name)
    with refusing(lambda words: f"{name!r} is not served: its tensors have no names in transformers: {words}"):
        places = _places(header, model, config)
    _require_places(header, places, name)
    held: dict[str, int] = {}
    for tensor, place in places.items():
        held[place] = held.get(place, 0) + header.tensors[tensor].elements
    state = model.state_dict()
    wrong = [place for place, count in held.items() if state[place].numel() != count]
    if wrong:
        place = min(wrong)
        raise ModelRefusedError(
            f"{name!r} is not served: for {printable(place)} its file holds {held[place]} numbers, by its settings it "
            f"has {state[place].numel()}{f', and {len(wrong) - 1} more differ' if len(wrong) > 1 else ''}",
            metadata={"tensor": printable(place), "got": str(held[place]), "expected": str(state[place].numel())},
        )
    return {place: StoredTensor(header.path.name, "F32", tuple(state[place].shape)) for place in held}


def _places(header: GgufHeader, model: torch.nn.Module, config: PretrainedConfig) -> dict[str, str]:
    """Tensor of the file -> weight of the model, as transformers itself maps them."""
    from transformers import modeling_gguf_pytorch_utils as legacy

    processor = legacy.TENSOR_PROCESSORS.get(header.architecture, legacy.TensorProcessor)(config=config.to_dict())
    found: Mapping[str, str] = legacy.get_gguf_hf_weights_map(model, processor)
    keys = {tensor: tensor if tensor in found else tensor.removesuffix(".weight") for tensor in header.tensors}
    return {tensor: found[key] for tensor, key in keys.items() if key in found}


def _require_places(header: GgufHeader, places: Collection[str], name: str) -> None:
    """What has no place is left out by transformers without a word."""
    left_over = {tensor for tensor in header.tensors if tensor not in places}
    if _ROPE_FREQUENCIES in left_over and header.tensors[_ROPE_FREQUENCIES].kind == "F32":
        factors = next(tensor.data for tensor in GgufReading(header).tensors if tensor.name == _ROPE_FREQUENCIES)
        left_over -= {_ROPE_FREQUENCIES} if bool((factors == 1).all()) else set()
    if left_over:
        raise ModelRefusedError(
            f"{name!r} is not served: transformers has no place for {listed(left_over)} of its file; serve the model "
            "from its safetensors files",
            metadata={"left_over": str(len(left_over))},
        )


def _largest(header: GgufHeader) -> int:
    """Bytes that dequantising one tensor takes for a moment: its numbers as float32, twice."""
    return 8 * max((tensor.elements for tensor in header.tensors.values()), default=0)
