"""Which part of a model tells which other part what, to first order: edge attribution patching, for all edges at once.

Syed, Rager and Conmy, Attribution Patching Outperforms Automated Circuit Discovery (2023); with `steps`, Hanna,
Pezzelle and Belinkov, Have Faith in Faithfulness (2024). What `path_patch` measures of one receiver, this estimates of
all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from transparent_llm.analysis.differentiation import Differentiation, Edges, EdgeScores, Frozen
from transparent_llm.analysis.gradient_grids import differentiable, said
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.metrics import Metric
from transparent_llm.analysis.rows import Row
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.runtime.indexing import integer


@dataclass(frozen=True, repr=False, eq=False)
class EdgeAttribution(Labelled):
    """`value` [sender receiver]; `sender` and `receiver` are named as sites are, the last receiver is "logits"."""

    def top_edges(self, k: int = 20) -> list[tuple[str, str, float]]:
        """Sender, receiver and score of the edges with the largest scores, of whichever sign.

        Raises:
            InvalidRequestError: less than one.
        """
        if integer("k", k) < 1:
            raise InvalidRequestError(f"k must be at least 1, got {k}")
        scores = self["value"]
        order = scores.abs().flatten().argsort(descending=True, stable=True)[:k].tolist()
        senders, receivers = (axis.words for axis in self.axes)
        places = [divmod(place, scores.shape[1]) for place in order]
        return [(senders[one], receivers[other], float(scores[one, other])) for one, other in places]


def edge_attribution(
    source: TransparentLlm,
    base: TransparentLlm,
    metric: Metric,
    *,
    steps: int = 0,
    frozen: Collection[Frozen] = (),
    source_row: int = 0,
    base_row: int = 0,
) -> EdgeAttribution:
    """What the metric of the base row gains, to first order, where one receiver reads of one sender what that gives in
    the source row: the difference of what the sender adds to the residual stream, times the gradient by the stream as
    that receiver alone reads it, through its norm.

    Without `steps` the scores of all edges of a sender add up to what `attribution_patching` says of it. It is computed
    next to the weights; only the scores travel. Where a norm stands between attention and the stream, what a head adds
    is what becomes of it there to first order.

    Args:
        source: An object whose current run has the source row, such as the corrupt one.
        base: An object of the same model whose current run, without edits, has the base row, of as many tokens.
        metric: What is measured; no projection.
        steps: 0: gradients of the base row (EAP). Else the mean of those at so many nodes on the straight way from its
            embedding to that of the source row (EAP-IG).
        frozen: Constants of the backward pass: see `differentiation.Frozen`. A receiver that is one has no edges.
        source_row: Of the source's run.
        base_row: Of the base's run.

    Returns:
        `value` [sender receiver]. Senders: "residual_in(0)", each "head(layer, head)" and "ffn_out(layer)". Receivers:
        queries, keys and values, "query(layer, head)", "key(layer, kv_head)", "value(layer, kv_head)"; "ffn(layer)";
        "logits". 0 where a sender does not come before a receiver.

    Raises:
        InvalidRequestError: rows of different length, a projection, or a base run with edits.
        NotSupportedError: the object has no gradients, or a layer of the model has no heads.
        TooLargeError: more than the server computes at once.
    """
    other, row = Row.of(source, source_row), Row.of(base, base_row)
    if other.n_tokens != row.n_tokens:
        raise InvalidRequestError(
            f"the source row has {other.n_tokens} tokens, the base row {row.n_tokens}: they must have as many"
        )
    edges = Edges(source, (other.index,), steps)
    asked = Differentiation(metric.of_ids(base, row.index), (), (row.index,), tuple(frozen), edges=edges)
    found = differentiable(base).gradients(asked)
    assert found.edges is not None  # they were asked for
    return _labelled(f"edges of {said(metric, found)}", found.edges)


def _labelled(title: str, edges: EdgeScores) -> EdgeAttribution:
    """Of the first row."""
    n_layers, n_heads = edges.query.shape[2:]
    n_kv = edges.key.shape[3]
    senders, receivers, scores = ["residual_in(0)"], [], []
    for layer in range(n_layers):
        senders += [*(f"head({layer}, {head})" for head in range(n_heads)), f"ffn_out({layer})"]
        for name, count in (("query", n_heads), ("key", n_kv), ("value", n_kv)):
            receivers += [f"{name}({layer}, {head})" for head in range(count)]
            scores.append(getattr(edges, name)[0, :, layer])
        receivers.append(f"ffn({layer})")
        scores.append(edges.ffn[0, :, layer, None])
    value = torch.cat([*scores, edges.logits[0, :, None]], dim=1)
    axes = Axis("sender", senders), Axis("receiver", [*receivers, "logits"])
    return EdgeAttribution(title, axes, {"value": OnAxes(value, ("sender", "receiver"))})
