"""Gradients of one row as grids: what analyses by gradients ask for, and what becomes of the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.differentiation import Differentiable, Differentiation, Frozen, Gradients, SiteGradient
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.metrics import Metric
from transparent_llm.analysis.rows import Row, layer_of
from transparent_llm.analysis.sweeps import SITES_BY_PLACES
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import NotSupportedError
from transparent_llm.interventions import Intervention, Site, head, neurons

OfPositions = Literal["residual_in", "residual_after_attn", "residual_out", "attn_out", "ffn_out"]
Places = OfPositions | Literal["head", "neurons"]


def differentiated(
    llm: TransparentLlm,
    row: Row,
    metric: Metric,
    sites: Sequence[SiteGradient],
    frozen: Collection[Frozen] = (),
    edits: Sequence[Intervention] = (),
) -> Gradients:
    """Of one row.

    Raises:
        NotSupportedError: the object has no gradients; and as `Differentiable.gradients`.
    """
    asked = Differentiation(
        metric.of_ids(llm, row.index), tuple(sites), (row.index,), tuple(frozen), edits=tuple(edits)
    )
    return differentiable(llm).gradients(asked)


def differentiable(llm: TransparentLlm) -> Differentiable:
    """The object, if it has gradients."""
    if not isinstance(llm, Differentiable):
        raise NotSupportedError(f"runs of {type(llm).__name__} cannot be differentiated")
    return llm


def chosen_layers(llm: TransparentLlm, layer: int | None) -> Sequence[int]:
    """This one, or all."""
    return range(llm.model_info().n_layers) if layer is None else [layer_of(llm, layer)]


def sites_of(places: str, layers: Sequence[int]) -> list[Site]:
    """The sites of these layers, all heads or neurons of a layer as one."""
    checked_choice("places", places, (*SITES_BY_PLACES, "head", "neurons"))
    makes: dict[str, Callable[[int], Site]] = {"head": head, "neurons": neurons, **SITES_BY_PLACES}
    return [makes[places](layer) for layer in layers]


def grid(
    llm: TransparentLlm,
    row: Row,
    layers: Sequence[int],
    asked: Sequence[SiteGradient],
    found: Gradients,
    title: str,
    name: str,
    *,
    over_positions: bool = False,
) -> Labelled:
    """Of all layers, whose tensors are of one shape."""
    stacked = torch.stack([tensor[0] for tensor in found.sites])
    dims = asked[0].dims[1:]
    if over_positions:
        stacked, dims = stacked.sum(dim=1), dims[1:]
    words, chosen = row.words(llm), asked[0].site.neurons
    axes = [Axis("layer", layers)]
    for axis, size in zip(dims, stacked.shape[1:], strict=True):
        axes.append(Axis(axis, chosen) if axis == "neuron" and chosen else axis_of(axis, size, words))
    return Labelled(title, tuple(axes), {name: OnAxes(stacked, ("layer", *dims))})


def axis_of(name: str, size: int, words: Sequence[str]) -> Axis:
    """With the tokens, where it is of positions."""
    return Axis(name, range(size), {"token": words} if name in ("pos", "query_pos", "key_pos") else {})


def said(metric: Metric, found: Gradients) -> str:
    """The metric and what it is."""
    return f"{metric} ({float(found.metric[0]):.4g})"
