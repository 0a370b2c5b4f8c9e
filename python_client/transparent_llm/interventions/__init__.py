"""Changes of a run, as data: where, which elements, and what becomes of them. `llm.run(sentences, edits=[...])`.

    llm.run(["When John and Mary went to the shops, John gave the bag to"], edits=[zero(head(9, 6))])
    llm.run([corrupt], edits=[patch(residual_out(5), source=clean, positions=[3])])
    llm.run([text], edits=[add(residual_out(6), unembedding(5335), 4.0, positions="last")])

Edits are made in the order in which the model comes to their sites; at one site in the order of the list, each of what
the one before left. Every value that is then read is one of the edited run. The definitions of sites and operations
stand with them (`site.py`, `operation.py`); they are computed in float32 at least, and rounded once.
"""

from transparent_llm.interventions.comparison import RowComparison
from transparent_llm.interventions.effect import EditEffect
from transparent_llm.interventions.effects import Effects
from transparent_llm.interventions.intervention import (
    Intervention,
    add,
    clamp,
    clamp_feature,
    freeze,
    mean,
    noise,
    patch,
    project,
    scale,
    set_to,
    swap,
    zero,
)
from transparent_llm.interventions.kept import KeptVector
from transparent_llm.interventions.site import (
    Site,
    attn_out,
    ffn_out,
    final_norm_scale,
    head,
    key,
    neurons,
    norm_scale,
    pattern,
    query,
    residual_after_attn,
    residual_in,
    residual_out,
    value,
)
from transparent_llm.interventions.vector import Vector, literal, neuron_output, sae_feature, unembedding, value_of

__all__ = [
    "EditEffect",
    "Effects",
    "Intervention",
    "KeptVector",
    "RowComparison",
    "Site",
    "Vector",
    "add",
    "attn_out",
    "clamp",
    "clamp_feature",
    "ffn_out",
    "final_norm_scale",
    "freeze",
    "head",
    "key",
    "literal",
    "mean",
    "neuron_output",
    "neurons",
    "noise",
    "norm_scale",
    "patch",
    "pattern",
    "project",
    "query",
    "residual_after_attn",
    "residual_in",
    "residual_out",
    "sae_feature",
    "scale",
    "set_to",
    "swap",
    "unembedding",
    "value",
    "value_of",
    "zero",
]
