"""What differs between model families, as data: who is refused and why, and how final logits are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from transparent_llm.errors import ModelRefusedError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Refusal:
    """A kind of model that would give wrong values, recognised by its configuration."""

    model_type: str
    applies: Callable[[PretrainedConfig], bool]
    why: str


REFUSALS = (
    Refusal(
        "falcon",
        lambda config: bool(config.new_decoder_architecture),
        "Falcon with new_decoder_architecture (40B, 180B): TransformerLens splits its fused query-key-value weights "
        "contiguously although they are interleaved by group, so attention would be wrong",
    ),
    Refusal(
        "bloom",
        lambda config: bool(config.apply_residual_connection_post_layernorm),
        "Bloom with apply_residual_connection_post_layernorm: the stream that blocks add to is the normalised one, "
        "so residual_in plus the attention output is not residual_after_attn",
    ),
    Refusal(
        "opt",
        lambda config: not config.do_layer_norm_before,
        "OPT with do_layer_norm_before=False (OPT-350m): the stream is normalised again after every addition, "
        "so there is no residual stream that the parts of a layer sum up to",
    ),
    Refusal(
        "gpt_neox",
        lambda config: not config.attention_bias,
        "GPT-NeoX with attention_bias=False: TransformerLens splits its fused query-key-value weights together with "
        "biases that it does not have",
    ),
)


def refuse_if_known_wrong(config: PretrainedConfig) -> None:
    """Stop before any weight is loaded.

    Raises:
        ModelRefusedError: this configuration is one of `REFUSALS`; the message says why.
    """
    for refusal in REFUSALS:
        if config.model_type == refusal.model_type and refusal.applies(config):
            raise ModelRefusedError(f"{refusal.why}. The model is not served.", metadata={"family": config.model_type})


@dataclass(frozen=True)
class LogitsRule:
    """What a family does to the product with the unembedding before it calls it logits."""

    attribute: str
    model_types: tuple[str, ...]
    """Prefixes of `config.model_type` of the families that do so."""

    apply: Callable[[torch.Tensor, float], torch.Tensor]

    is_cap: bool = False
    """Whether it caps logits; all others multiply them by a number."""


LOGITS_RULES = (
    LogitsRule("logits_scaling", ("granite",), lambda logits, scale: logits / scale),
    LogitsRule("logit_scale", ("cohere",), lambda logits, scale: logits * scale),
    LogitsRule("final_logit_softcapping", ("gemma",), lambda logits, cap: torch.tanh(logits / cap) * cap, is_cap=True),
)


def finish_logits(logits: torch.Tensor, config: PretrainedConfig) -> torch.Tensor:
    """Apply the family's own last step: scale (Granite, Cohere) or soft cap (Gemma 2)."""
    for rule, value in _rules_of(config):
        logits = rule.apply(logits, value)
    return logits


def logit_scale(config: PretrainedConfig) -> float:
    """What the family multiplies its logits by, before any cap."""
    scale = torch.ones((), dtype=torch.float64)
    for rule, value in _rules_of(config):
        scale = scale if rule.is_cap else rule.apply(scale, value)
    return float(scale)


def soft_cap(config: PretrainedConfig) -> float | None:
    """What the family's logits stay below, if they do: `cap * tanh(logits / cap)`."""
    return next((float(value) for rule, value in _rules_of(config) if rule.is_cap), None)


def _rules_of(config: PretrainedConfig) -> list[tuple[LogitsRule, float]]:
    values = [(rule, getattr(config, rule.attribute, None)) for rule in LOGITS_RULES]
    return [(rule, v) for rule, v in values if v is not None and config.model_type.startswith(rule.model_types)]
