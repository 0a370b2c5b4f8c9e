"""The analyses as methods of the classes of this project; as functions they take any `TransparentLlm`."""

from __future__ import annotations

from transparent_llm.analysis.activations import activations
from transparent_llm.analysis.attribution_table import attribution
from transparent_llm.analysis.circuits import composition_scores, copying_scores, head_weights
from transparent_llm.analysis.contribution_graph import contribution_graph
from transparent_llm.analysis.edges_by_layer import contribution_edges_by_layer
from transparent_llm.analysis.features_of_row import feature_activations_of, features_of, saes_of
from transparent_llm.analysis.logit_lens import logit_lens
from transparent_llm.analysis.of_layer import (
    attention_of,
    attn_contributions_of,
    head_scores_of,
    neuron_attribution_of,
    neuron_contributions_of,
    source_attribution_of,
    value_weighted_norms_of,
)
from transparent_llm.analysis.text_logprobs import text_logprobs
from transparent_llm.analysis.top_activations import top_activations
from transparent_llm.analysis.top_tokens import top_tokens, top_tokens_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.runtime.short_tracebacks import short_tracebacks


@short_tracebacks
class Analyses(TransparentLlm):
    """A `TransparentLlm` that can be asked for analyses of its current run, and of its weights.

    Of a remote one, each is one read: what is small is made next to the weights.
    """

    logit_lens = logit_lens
    top_tokens = top_tokens
    top_tokens_of = top_tokens_of
    token_logprobs = text_logprobs

    contribution_graph = contribution_graph
    contribution_edges_by_layer = contribution_edges_by_layer
    attn_contributions = attn_contributions_of
    neuron_contributions = neuron_contributions_of

    attribution = attribution
    source_attribution = source_attribution_of
    neuron_attribution = neuron_attribution_of

    attention_matrices = attention_of
    head_scores = head_scores_of
    value_weighted_norms = value_weighted_norms_of

    head_weights = head_weights
    composition_scores = composition_scores
    copying_scores = copying_scores
    saes = saes_of
    features = features_of
    feature_activations = feature_activations_of

    activations = activations
    top_activations = top_activations
