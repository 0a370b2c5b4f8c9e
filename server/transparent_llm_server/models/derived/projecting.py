"""What analyses ask of a model in this process beyond the contract: the last step, factors, parts along a direction."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Float

from transparent_llm.analysis.readout import Readout
from transparent_llm.factors import AttnFactors, FfnFactors, Rows
from transparent_llm.runtime.current import Current
from transparent_llm.runtime.numerics import standard_numerics
from transparent_llm_server.models.derived.readout import LastStep
from transparent_llm_server.models.derived.run import RunValues

_Self = TypeVar("_Self", bound="Projecting")


class Projecting:
    """`HasReadout`, `HasFinalScale`, `HasProjections`, `HasAttnFactors` and `HasFfnFactors` of
    `transparent_llm.analysis`: there it is said what the methods mean."""

    _last_step: LastStep
    _current_run: Current[RunValues]

    def reading_run(self: _Self, values: RunValues) -> _Self:
        """Another object on the same model, whose current run is this one."""
        twin = copy.copy(self)
        twin._current_run = Current((None, values))
        return twin

    def values(self) -> RunValues:
        """The current run's values."""
        raise NotImplementedError

    @standard_numerics()
    def readout(self, tokens: Sequence[int]) -> Readout:
        """The last step for some tokens of the vocabulary.

        Raises:
            NotSupportedError: what can be read of the model does not give its own logits.
        """
        return self._last_step.readout(tokens)

    def final_scale(self, batch_i: int) -> Float[torch.Tensor, "pos"] | None:
        """What the final norm divides a row by, where that was frozen in this run."""
        return self.values().final_scale(batch_i)

    @standard_numerics()
    def heads_along(
        self, batch_i: int, layer: int, pos: int, along: Float[torch.Tensor, "d_model"]
    ) -> Float[torch.Tensor, "head source"]:
        """What each head brought from each source, along a direction."""
        return self.values().heads_along(batch_i, layer, pos, along).own_tensor()

    @standard_numerics()
    def attention_bias(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, "d_model"]:
        """What attention added that belongs to no head."""
        return self.values().attention_bias(batch_i, layer, pos)

    @standard_numerics()
    def ffn_bias(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, "d_model"]:
        """What the feed-forward part added that belongs to no neuron."""
        return self.values().ffn_bias(batch_i, layer, pos)

    @standard_numerics()
    def norms_of_values(self, batch_i: int, layer: int) -> Float[torch.Tensor, "head target source"]:
        """Length of what each head brought from each source to each target."""
        return self.values().value_weighted_norms(batch_i, layer).own_tensor()

    def attn_factors(self, batch_i: int, layer: int) -> AttnFactors:
        """What `decomposed_attn` is the product of; it lies partly in the run's memory, and nobody may write to it."""
        return self.values().attn_factors(batch_i, layer)

    def ffn_factors(self, batch_i: int, layer: int, pos: int) -> tuple[FfnFactors, Rows]:
        """What `decomposed_ffn_out` is the product of, and the output vectors; nobody may write to them."""
        return self.values().ffn_factors(batch_i, layer, pos)
