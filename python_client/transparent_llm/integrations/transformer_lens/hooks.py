"""The hooks whose value a method of `TransparentLlm` defines: what is read for each, and how that makes its tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch

from transparent_llm.client.reads import Read
from transparent_llm.wire.methods import METHODS


@dataclass(frozen=True)
class Hook:
    """A hook of a block, by the name that TransformerLens has had for it since version 1."""

    name: str
    """In the block: `hook_resid_pre`."""

    method: str
    """That defines its value."""

    each: tuple[str, ...] = ()
    """Arguments of the method that the hook's tensor has as axes, in their order; one read for each combination."""

    pos_axes: tuple[int, ...] = (1,)
    """Axes of the hook's tensor that go along the positions."""


HOOKS = (
    Hook("hook_resid_pre", "residual_in"),
    Hook("hook_resid_mid", "residual_after_attn"),
    Hook("hook_resid_post", "residual_out"),
    Hook("hook_attn_out", "attention_output", each=("batch_i", "pos")),
    Hook("hook_mlp_out", "ffn_out"),
    Hook("attn.hook_pattern", "attention_matrix", each=("batch_i", "head"), pos_axes=(2, 3)),
    Hook("attn.hook_result", "attention_output", each=("batch_i", "pos", "head")),
    Hook("mlp.hook_post", "neuron_activations", each=("batch_i", "pos")),
)

RESULT = "attn.hook_result"
"""The one that TransformerLens has to be told to fire."""


@dataclass(frozen=True)
class HookPoint:
    """A hook in one layer."""

    hook: Hook
    layer: int

    def reads(self, sizes: Mapping[str, int]) -> list[Read]:
        """What is read for it; `sizes` has the length of every axis that is read step by step."""
        arguments = METHODS[self.hook.method].arguments
        steps = product(*(range(sizes[axis]) for axis in self.hook.each))
        given = [dict(zip(self.hook.each, step, strict=True), layer=self.layer) for step in steps]
        return [(self.hook.method, tuple(indices.get(argument) for argument in arguments)) for indices in given]

    def value(self, parts: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
        """The hook's tensor, of what came for its reads."""
        if not self.hook.each:
            return parts[0]
        return torch.stack(list(parts)).reshape(*(sizes[axis] for axis in self.hook.each), *parts[0].shape)
