"""What an analysis costs, in multiply-adds, known from sizes and parameters before anything is computed.

Each number is a bound within a small factor, for a model that is dense: what a mixture of experts skips counts too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from transparent_llm.contract import ModelInfo
from transparent_llm.wire.methods import METHODS

LONG = 10**8
"""Of one analysis: with more, it lets short reads of others in between two pieces. Some milliseconds."""

_PASSES = 8
"""Over the scores of a vector: largest, smallest, softmax, entropy."""


@dataclass(frozen=True)
class Sizes:
    """Of a model and a row of a run."""

    info: ModelInfo
    n_pos: int
    """Tokens of the row."""

    saes: Mapping[str, int] = field(default_factory=dict)
    """Weights of each sparse autoencoder of the model, by their names."""

    @property
    def pairs(self) -> int:
        """Of a target and a source, of all heads of a layer."""
        return self.info.n_heads * self.n_pos**2

    @property
    def weights(self) -> int:
        """Of one layer: at the most, as those of the vocabulary are counted in."""
        return self.info.n_params_estimate // max(1, self.info.n_layers)

    @property
    def scores(self) -> int:
        """Of one vector for the whole vocabulary."""
        return self.info.d_vocab * self.info.d_model


def work_of(name: str, arguments: Sequence[Any], sizes: Sizes) -> int:
    """Multiply-adds of one analysis."""
    return _WORK[name](sizes, dict(zip(METHODS[name].argument_names, arguments, strict=True)))


def _layer_lens(sizes: Sizes, given: Mapping[str, Any]) -> int:
    n_pos, d_vocab = len(given["positions"]) or sizes.n_pos, sizes.info.d_vocab
    products = sizes.scores * (2 if given["with_kl"] else 1)
    return n_pos * (products + d_vocab * (_PASSES + len(given["token_ids"])))


def _token_logprobs(sizes: Sizes, _: Mapping[str, Any]) -> int:
    return sizes.n_pos * (sizes.scores + sizes.info.d_vocab * _PASSES)


def _contributions(sizes: Sizes, _: Mapping[str, Any]) -> int:
    """A distance for each pair, and values times output weights, of heads that may be wider than d_model together."""
    return sizes.pairs * sizes.info.d_model + sizes.n_pos * 2 * sizes.info.d_model**2


def _contributions_to(sizes: Sizes, given: Mapping[str, Any]) -> int:
    """As all contributions, of some of the targets."""
    n_targets, info = len(given["targets"]) or sizes.n_pos, sizes.info
    return n_targets * sizes.n_pos * info.n_heads * info.d_model + sizes.n_pos * 2 * info.d_model**2


def _pattern(sizes: Sizes, _: Mapping[str, Any]) -> int:
    return sizes.pairs


def _at_a_position(sizes: Sizes, _: Mapping[str, Any]) -> int:
    return sizes.n_pos * sizes.info.d_model + sizes.weights


def _features(sizes: Sizes, given: Mapping[str, Any]) -> int:
    """The encoder, and the decoder too; without a name, the largest there is."""
    weights = sizes.saes.get(given["sae"], max(sizes.saes.values(), default=1))
    return (len(given["positions"]) or sizes.n_pos) * weights


def _logit_terms(sizes: Sizes, _: Mapping[str, Any]) -> int:
    return (sizes.info.n_layers + 2) * sizes.info.d_model


_WORK: Mapping[str, Callable[[Sizes, Mapping[str, Any]], int]] = MappingProxyType(
    {
        "layer_lens": _layer_lens,
        "token_logprobs": _token_logprobs,
        "attn_contributions": _contributions,
        "contribution_edges": _contributions,
        "contribution_edges_to": _contributions_to,
        "value_weighted_norms": _contributions,
        "attention_matrices": _pattern,
        "head_scores": _pattern,
        "neuron_contributions": _at_a_position,
        "logit_attribution": _at_a_position,
        "source_attribution": _at_a_position,
        "neuron_attribution": _at_a_position,
        "logit_terms": _logit_terms,
        "features": _features,
        "feature_activations": _features,
    }
)
"""Of each analysis of the table."""
