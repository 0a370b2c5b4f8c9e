"""The table of analyses: what each name is computed by. Servers compute the same functions, next to the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transparent_llm.analysis.attribution import (
    logit_attribution,
    logit_terms,
    neuron_attribution,
    source_attribution,
)
from transparent_llm.analysis.contributions import (
    attn_contributions,
    contribution_edges,
    contribution_edges_to,
    neuron_contributions,
)
from transparent_llm.analysis.features import feature_activations, features
from transparent_llm.analysis.heads import attention_matrices, head_scores, value_weighted_norms
from transparent_llm.analysis.layer_lens import layer_lens
from transparent_llm.analysis.token_logprobs import token_logprobs

_ALL = (
    *(layer_lens, token_logprobs),
    *(attn_contributions, contribution_edges, contribution_edges_to, neuron_contributions),
    *(logit_terms, logit_attribution, source_attribution, neuron_attribution),
    *(attention_matrices, head_scores, value_weighted_norms),
    *(features, feature_activations),
)
ANALYSES: Mapping[str, Callable[..., Any]] = {function.__name__: function for function in _ALL}
"""Each takes an object that has a run, indices and parameters, and gives a tensor or a named tuple of several."""
