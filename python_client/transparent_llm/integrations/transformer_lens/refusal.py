"""Words for what the service does not give to TransformerLens, with what it gives instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transparent_llm.errors import NotSupportedError

LOCAL = "load the model into this process, TransformerBridge.boot_transformers(...), for that"

_SCORES = "of queries and keys attn.hook_pattern has the probabilities that they give"
_INSTEAD = (
    (
        ("hook_z", ".o.hook_in"),
        "of z attn.hook_result has what W_O makes of it, each head's own, after set_use_attn_result(True)",
    ),
    (
        ("hook_v", ".v.hook_out"),
        "of values the client's decomposed_attn(batch_i, layer) has pattern times value times W_O",
    ),
    (("hook_q", "hook_k", ".q.hook_out", ".k.hook_out", "hook_attn_scores"), _SCORES),
    (("hook_embed", "hook_pos_embed"), "blocks.0.hook_resid_pre is the sum of the embeddings"),
)
"""Ends of names, and where what is behind them can be seen."""


def not_served(names: Sequence[str], served: frozenset[str]) -> NotSupportedError:
    """The error for hooks that cannot be read, with those that can."""
    kinds = sorted({re.sub(r"^blocks\.\d+\.", "blocks.LAYER.", name) for name in served})
    instead = [f"; {words}" for ends, words in _INSTEAD if any(name.endswith(ends) for name in names)]
    return NotSupportedError(
        f"{', '.join(names)} cannot be read from the service{''.join(instead)}. These can: {', '.join(kinds)}, also "
        f"under their HookedTransformer names, and the logits, which are returned. For others, {LOCAL}",
        metadata={"hooks": ", ".join(names)},
    )
