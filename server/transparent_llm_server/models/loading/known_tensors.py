"""Tensors of published checkpoints that may be left over or absent, as data: all others may not.

A tensor that is left over is one that the model has no place for; one that is absent would be made up. Which of them
do no harm follows from what they are, not from a model's name, so that no list of models has to be kept.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

LAYER = re.compile(r"(?:^|\.)(?P<layer>(?:layers|h|blocks|block|layer)\.(?P<index>[0-9]+))\.")
"""The layer that a tensor's name says it is of."""

_NEXT_TOKEN = re.compile(r"\.(?:eh_proj|hnorm)\.weight$")
"""Only layers that predict tokens behind the next one have these."""


@dataclass(frozen=True)
class KnownTensors:
    """Names that do no harm."""

    names: re.Pattern[str]
    why: str


LEFT_OVER = (
    KnownTensors(
        re.compile(r"(?:^|\.)(?:attn|attention|self_attention)\.(?:bias|masked_bias|causal_mask)$"),
        "the causal mask, which older versions of GPT-2, GPT-Neo, GPT-J, GPT-NeoX (Pythia), CodeGen and GPTBigCode "
        "saved in every layer; transformers makes it itself",
    ),
    KnownTensors(
        re.compile(r"(?:^|\.)(?:\w*rotary\w*\.(?:inv_freq|cos_cached|sin_cached)|attn\.embed_positions|embed_scale)$"),
        "rotary frequencies and sinusoids, which older versions of Llama, GPT-NeoX, Falcon and GPT-J saved; they "
        "follow from the configuration",
    ),
    KnownTensors(
        re.compile(r"(?:^|\.)(?:position_ids|decoder\.version)$"),
        "the numbers 0, 1, 2, ... and a version of the file, which older versions saved as tensors (OPT)",
    ),
    KnownTensors(
        re.compile(r"(?:^|\.)mtp(?:_\w+)?\."),
        "heads that predict tokens behind the next one (Qwen 3 Next, MiMo, EXAONE): they read the last residual stream "
        "and change nothing of it",
    ),
    KnownTensors(
        re.compile(r"^(?:model\.)?(?:visual|vision_tower|vision_model|audio_tower|multi_modal_projector)\."),
        "towers for pictures and sound, where only the language model is served: it gets text alone",
    ),
)
"""Of a file, without a place in the model. The layers for tokens behind the next one that DeepSeek V3 and GLM 4.5
number as if they were layers of the model are found by what is in them, see `next_token_layers`."""

ABSENT: tuple[KnownTensors, ...] = (
    KnownTensors(
        re.compile(r"(?:^|\.)(?:attn|attention|self_attention)\.(?:attention\.)?(?:bias|masked_bias|causal_mask)$"),
        "the causal mask, where the model keeps it as a buffer",
    ),
    KnownTensors(
        re.compile(r"(?:^|\.)(?:\w*inv_freq|embed_positions|embed_scale|position_ids)$"),
        "rotary frequencies and positions, where the model keeps them as buffers",
    ),
)
"""Of a model, without a tensor in the files: buffers alone, and only those that follow from the configuration. A weight
that is tied to one that is there is none of them: it is checked to be the same."""


def is_known(name: str, known: Collection[KnownTensors]) -> bool:
    """Whether one of these says that it does no harm."""
    return any(each.names.search(name) for each in known)


def layer_of(name: str) -> str:
    """`layers.3` of `model.layers.3.mlp.gate.weight`; empty where it is of no layer."""
    found = LAYER.search(name)
    return found["layer"] if found else ""


def next_token_layers(names: Collection[str]) -> frozenset[str]:
    """Layers that are numbered behind those of the model, and predict tokens behind the next one."""
    return frozenset(layer_of(name) for name in names if _NEXT_TOKEN.search(name)) - {""}
