"""The hooks whose value a method of `TransparentLlm` defines: what is read for each, and how that makes its tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

    padding: float = 0.0
    """What stands there where no token is."""


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


FINAL_SCALE = Hook("ln_final.hook_scale", "residual_out", padding=1.0)
"""What the norm before the unembedding divides by [batch pos 1]: of no block, and computed here."""


@dataclass(frozen=True)
class HookPoint:
    """A hook in one layer."""

    hook: Hook
    layer: int
    compute: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Makes its tensor of what is read. None: it is that."""

    def reads(self, sizes: Mapping[str, int], lengths: Sequence[int]) -> list[Read]:
        """What is read for it.

        Args:
            sizes: The length of every axis that is read step by step.
            lengths: Tokens of each row; what follows them is padding, and not read.
        """
        arguments = METHODS[self.hook.method].arguments
        given = [dict(zip(self.hook.each, step, strict=True), layer=self.layer) for step in self._steps(sizes, lengths)]
        return [(self.hook.method, tuple(indices.get(argument) for argument in arguments)) for indices in given]

    def value(self, parts: Sequence[torch.Tensor], sizes: Mapping[str, int], lengths: Sequence[int]) -> torch.Tensor:
        """The hook's tensor, of what came for its reads; 0 where nothing was read."""
        if not self.hook.each:
            return parts[0] if self.compute is None else self.compute(parts[0])
        whole = parts[0].new_zeros(*(sizes[axis] for axis in self.hook.each), *parts[0].shape)
        whole[tuple(torch.tensor(self._steps(sizes, lengths)).T)] = torch.stack(list(parts))
        return whole

    def _steps(self, sizes: Mapping[str, int], lengths: Sequence[int]) -> list[tuple[int, ...]]:
        """Values of `Hook.each`, less those that are padding."""
        steps = product(*(range(sizes[axis]) for axis in self.hook.each))
        if "pos" not in self.hook.each:
            return list(steps)
        row, pos = (self.hook.each.index(axis) for axis in ("batch_i", "pos"))
        return [step for step in steps if step[pos] < lengths[step[row]]]
