"""Whether the configuration that transformers makes of a GGUF file says what the file says.

Transformers reads some settings of a file, leaves out others without a word, and takes its own default where it reads
none. So each that the file has is looked for in the configuration here; what cannot be found makes another model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transparent_llm.errors import ModelRefusedError
from transparent_llm_server.models.loading.gguf_header import Elements, GgufHeader, Setting
from transparent_llm_server.models.loading.refusal import printable

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_Got = Callable[["PretrainedConfig"], Any]


def _first_of(*names: str) -> _Got:
    return lambda config: next((v for v in (getattr(config, name, None) for name in names) if v is not None), None)


def _head_dim(config: PretrainedConfig) -> float:
    return float(getattr(config, "head_dim", None) or config.hidden_size / config.num_attention_heads)


def _rope(config: PretrainedConfig) -> dict[str, Any]:
    """Where layers differ, those with full attention: the others have no setting in the file."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    full: dict[str, Any] = rope.get("full_attention", rope)
    return full


def _rotary_dim(config: PretrainedConfig) -> float:
    fraction = _rope(config).get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
    return _head_dim(config) * (1.0 if fraction is None else fraction)


def _kv_heads(config: PretrainedConfig) -> int:
    found = getattr(config, "num_key_value_heads", None)
    return int(config.num_attention_heads if found is None else found)


_EPSILONS = _first_of("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon")
SAME: dict[str, _Got] = {
    "context_length": _first_of("max_position_embeddings", "n_positions", "n_ctx"),
    "attention.head_count": _first_of("num_attention_heads"),
    "attention.head_count_kv": _kv_heads,
    "attention.key_length": _head_dim,
    "attention.value_length": _head_dim,
    "attention.layer_norm_rms_epsilon": _EPSILONS,
    "attention.layer_norm_epsilon": _EPSILONS,
    "attention.sliding_window": _first_of("sliding_window"),
    "rope.freq_base": lambda config: _rope(config).get("rope_theta", 10_000.0),
    "rope.dimension_count": _rotary_dim,
    "attn_logit_softcapping": _first_of("attn_logit_softcapping"),
    "final_logit_softcapping": _first_of("final_logit_softcapping"),
    "expert_used_count": _first_of("num_experts_per_tok"),
    "use_parallel_residual": _first_of("use_parallel_residual"),
}
"""What the configuration must say, by the name that the file has for it."""

NEUTRAL: dict[str, Setting] = {"rope.scaling.type": "none", "rope.scale_linear": 1.0, "attention.causal": True}
"""What changes nothing with this value alone."""

SEEN_IN_SHAPES = frozenset(
    {
        *("block_count", "embedding_length", "feed_forward_length", "vocab_size", "expert_count"),
        *("expert_feed_forward_length", "expert_shared_feed_forward_length"),
    }
)
"""The shapes of tensors, which are compared one by one, say the same."""

SILENT = frozenset({"tensor_data_layout", "rope.scaling.finetuned"})
"""What tells of the file, or of how the model was made."""

_SCALES_OF_27B = {"gemma2": 46, "gemma3": 62}
"""Layers of the models of that size: their scale of attention is not that of the others, and in no file."""


def require_same_settings(header: GgufHeader, config: PretrainedConfig, name: str) -> None:
    """Compare the settings of the model, one by one.

    Raises:
        ModelRefusedError: with the setting that the configuration lacks or has otherwise.
    """
    architecture = header.architecture
    if header.settings.get(f"{architecture}.block_count") == _SCALES_OF_27B.get(architecture, -1):
        raise _refused(
            name, architecture, "is of the size 27B, whose scale of attention is not the usual one and not in the file"
        )
    for key, value in header.settings.items():
        own = key.removeprefix(f"{architecture}.")
        if own == key or own in SEEN_IN_SHAPES | SILENT:
            continue
        if own not in SAME and _is_neutral(own, value, header):
            continue
        got = SAME[own](config) if own in SAME else None
        if got is None or not _same(value, got):
            what = f"{printable(str(got))} in the configuration that transformers makes of it"
            raise _refused(name, key, f"is {_shown(value)} in the file, and {what}")


def _is_neutral(own: str, value: Setting, header: GgufHeader) -> bool:
    if own.startswith("rope.scaling.") and header.settings.get(f"{header.architecture}.rope.scaling.type") == "none":
        return True
    return own in NEUTRAL and value == NEUTRAL[own]


def _same(value: Setting, got: Any) -> bool:
    if isinstance(value, list):
        return all(_same(each, got) for each in value)
    if isinstance(value, Elements | str) or isinstance(got, str | list | dict):
        return bool(value == got)
    return math.isclose(float(value), float(got), rel_tol=1e-6)


def _shown(value: Setting) -> str:
    return f"{value.count} values" if isinstance(value, Elements) else printable(repr(value))[:60]


def _refused(name: str, key: str, why: str) -> ModelRefusedError:
    return ModelRefusedError(
        f"{name!r} is not served: {printable(key)} {why}; serve the model from its safetensors files",
        metadata={"setting": printable(key)},
    )
