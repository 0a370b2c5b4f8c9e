"""What is asked for where a number of each row is differentiated by what stands at some sites of its run.

Where the run is given edits, it is differentiated as it is with them: what stands at a site, and the gradient by it,
are those after the edits at that site. What an edit sets is a constant.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.metrics import Metric
from transparent_llm.analysis.sweep_cells import MOST_EDITS
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm.interventions import Intervention, residual_in
from transparent_llm.interventions.own import checked_edits
from transparent_llm.interventions.site import OF_HEADS, ONLY_FROZEN, Site, SiteKind
from transparent_llm.runtime.indexing import integer

Form = Literal["gradient", "times_activation", "times_difference", "norm"]
"""What is told of a gradient g by a tensor a: g; a times g, summed over the last axis; (a of another run - a) times g,
summed likewise; the length of g along the last axis. Neurons and sources of a pattern are numbers of their own, and not
summed over."""

Frozen = Literal["patterns", "norm_scales", "attention", "neurons"]
"""Constants of the backward pass: attention patterns; what norms divide by; queries, keys and values; activations of
neurons."""

DIRECT: tuple[Frozen, ...] = get_args(Frozen)
"""All of them: what is left is the direct effect on the output, by the residual stream alone."""

MOST_SITES, MOST_SOURCES, MOST_STEPS = 4096, 16, 1000
"""Of one request: sites, and other runs that they take differences with; of one path: steps."""

_AXES = {
    SiteKind.HEAD: ("batch", "pos", "head", "d_head"),
    SiteKind.QUERY: ("batch", "pos", "head", "d_head"),
    SiteKind.KEY: ("batch", "pos", "kv_head", "d_head"),
    SiteKind.VALUE: ("batch", "pos", "kv_head", "d_head"),
    SiteKind.PATTERN: ("batch", "head", "query_pos", "key_pos"),
    SiteKind.NEURONS: ("batch", "pos", "neuron"),
}
_NUMBERS = (SiteKind.NEURONS, SiteKind.PATTERN)
_OF_PATHS = (SiteKind.RESIDUAL_IN, SiteKind.RESIDUAL_OUT, SiteKind.ATTN_OUT, SiteKind.FFN_OUT, SiteKind.HEAD)


@dataclass(frozen=True, eq=False)
class SiteGradient:
    """The gradient by one tensor."""

    site: Site
    form: Form = "gradient"
    source: TransparentLlm | None = None
    """Of "times_difference": an object whose current run is the other one, of rows that have as many tokens."""

    source_rows: tuple[int, ...] = ()
    """Its rows, one for each row that is differentiated; none: the same."""

    def __post_init__(self) -> None:
        checked_choice("form", self.form, get_args(Form))
        if self.site.kind in ONLY_FROZEN:
            raise InvalidRequestError(
                f"there is no gradient by {self.site}: name a tensor of the stream or of a branch"
            )
        needs_source, has_source = self.form == "times_difference", bool(self.source is not None or self.source_rows)
        if needs_source != has_source or (has_source and self.source is None):
            raise InvalidRequestError(
                f"a gradient of form {self.form!r} {'needs a' if needs_source else 'has no'} source"
            )

    @property
    def dims(self) -> tuple[str, ...]:
        """The axes of what is told of it."""
        kind = self.site.kind
        axes = _AXES.get(kind, ("batch", "pos", "d_model"))
        if kind in OF_HEADS and self.site.head is not None:
            axes = tuple(axis for axis in axes if axis not in ("head", "kv_head"))
        return axes if self.form == "gradient" or kind in _NUMBERS else axes[:-1]

    @property
    def is_of_numbers(self) -> bool:
        """Whether each element has a meaning of its own, so that none are summed."""
        return self.site.kind in _NUMBERS


@dataclass(frozen=True, eq=False)
class Path:
    """The straight way from a baseline to what the run has at a site, along which gradients are averaged."""

    baseline: Literal["zero"] | int | TransparentLlm = "zero"
    """Zeros; what the model has there, without edits, where a token, by its id, stands at all positions; or what the
    current run of an object has there, of as many rows, each of as many tokens."""

    steps: int = 50
    """Nodes of the Gauss-Legendre rule."""

    site: Site = field(default_factory=lambda: residual_in(0))
    """The stream as it enters or leaves a block, a branch, or heads before their output weights."""

    def __post_init__(self) -> None:
        if self.site.kind not in _OF_PATHS:
            raise InvalidRequestError(
                f"there is no path at {self.site}: name residual_in, residual_out, attn_out, ffn_out or head"
            )
        if isinstance(self.baseline, str) and self.baseline != "zero":
            raise InvalidRequestError('the baseline of a path is "zero", the id of a token, or an object with a run')
        if hasattr(self.baseline, "__index__"):
            object.__setattr__(self, "baseline", integer("baseline", self.baseline))
        if not 1 <= integer("steps", self.steps) <= MOST_STEPS:
            raise InvalidRequestError(f"a path has 1 to {MOST_STEPS} steps, got {self.steps}")

    @property
    def dims(self) -> tuple[str, ...]:
        """The axes of integrated gradients."""
        return SiteGradient(self.site).dims


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges between parts, by attribution patching: what a sender adds to the stream in another run, less what it adds
    in this one, times the gradient by the stream as one receiver reads it."""

    source: TransparentLlm
    """An object whose current run is the other one, of rows that have as many tokens."""

    source_rows: tuple[int, ...] = ()
    """Its rows, one for each row that is differentiated; none: the same."""

    steps: int = 0
    """0: the gradient of this run; else the mean of gradients at so many nodes on the straight way from the embedding
    of this run to that of the other."""

    def __post_init__(self) -> None:
        if not 0 <= integer("steps", self.steps) <= MOST_STEPS:
            raise InvalidRequestError(f"edges have 0 to {MOST_STEPS} steps, got {self.steps}")


@dataclass(frozen=True, eq=False)
class Differentiation:
    """Of the current run of an object: each row's number by what that row has."""

    metric: Metric
    """Of token ids: see `Metric.of_ids`."""

    sites: tuple[SiteGradient, ...] = ()
    """At least one; none where there is a path, or edges."""

    rows: tuple[int, ...] = ()
    """Of the run; none: all."""

    frozen: tuple[Frozen, ...] = ()
    path: Path | None = None
    """Integrated gradients along it instead."""

    edits: tuple[Intervention, ...] = ()
    """Of the run as it is differentiated; rows and positions are its own. No neurons of experts."""

    edges: Edges | None = None
    """Edges between parts instead, without edits."""

    def __post_init__(self) -> None:
        if len(checked_edits(self.edits)) > MOST_EDITS:
            raise TooLargeError(
                f"{len(self.edits)} edits of one run, at most {MOST_EDITS} can be made",
                metadata={"needed": str(len(self.edits)), "allowed": str(MOST_EDITS)},
            )
        for each in self.frozen:
            checked_choice("frozen", each, get_args(Frozen))
        if len(set(self.frozen)) != len(self.frozen):
            raise InvalidRequestError("frozen names a part twice")
        if bool(self.sites) + (self.path is not None) + (self.edges is not None) != 1:
            raise InvalidRequestError("gradients are by some sites, along one path, or of edges: give one of them")
        if self.edges is not None and (self.edits or self.metric.direction is not None):
            raise InvalidRequestError("edges are of a run without edits, and of a metric of logits")
        n_sources = len({id(each.source) for each in self.sites if each.source is not None})
        for what, count, most in (("sites", len(self.sites), MOST_SITES), ("other runs", n_sources, MOST_SOURCES)):
            if count > most:
                raise TooLargeError(
                    f"gradients by {count} {what}, at most {most} can be asked for at once",
                    metadata={"needed": str(count), "allowed": str(most)},
                )

    def positions(self, batch_pos: Sequence[int]) -> int:
        """That it computes, there and back, of a run of so many rows and positions."""
        batch, n_pos = batch_pos
        n_passes = 1 if self.path is None else self.path.steps + 1
        if self.edges is not None:
            n_passes = max(1, self.edges.steps)
        return (len(self.rows) or batch) * n_pos * n_passes


class IntegratedGradients(NamedTuple):
    """Along a path."""

    baseline_metric: torch.Tensor
    """What the metric is at the baseline [batch], float64."""

    delta: torch.Tensor
    """The sum of the gradients, less the difference of the two metrics [batch], float64: 0 were the rule exact."""

    values: torch.Tensor
    """(x - baseline) times the mean gradient, on the axes of a gradient by the site, float32; 0 at padding."""


class EdgeScores(NamedTuple):
    """Of edges, float32; 0 where a sender does not come before a receiver. Senders are the embedding, then, layer by
    layer, each head and the feed-forward part."""

    query: torch.Tensor
    """[batch sender layer head]"""

    key: torch.Tensor
    """[batch sender layer kv_head]"""

    value: torch.Tensor
    """[batch sender layer kv_head]"""

    ffn: torch.Tensor
    """[batch sender layer]"""

    logits: torch.Tensor
    """[batch sender]"""


EDGE_DIMS = {
    "query": ("batch", "sender", "layer", "head"),
    "key": ("batch", "sender", "layer", "kv_head"),
    "value": ("batch", "sender", "layer", "kv_head"),
    "ffn": ("batch", "sender", "layer"),
    "logits": ("batch", "sender"),
}
"""The axes of each of them, in their order."""


class Gradients(NamedTuple):
    """An answer."""

    metric: torch.Tensor
    """Of each row [batch], float64."""

    sites: tuple[torch.Tensor, ...]
    """For each site, in their order, what is told of it, with the axes `SiteGradient.dims`, float32; 0 at padding."""

    integrated: IntegratedGradients | None = None
    """Where there is a path."""

    edges: EdgeScores | None = None
    """Where edges are asked for."""


class Differentiable:
    """An object whose current run can be differentiated, next to the weights."""

    @abstractmethod
    def gradients(self, asked: Differentiation) -> Gradients:
        """By one forward and one backward pass for all sites; a path by as many as it has steps.

        The choice of experts and of what a mask hides is no function with a derivative: in a mixture of experts the
        gradient goes through the weights of the experts that were chosen, as if no other could have been.

        Raises:
            InvalidRequestError: the current run has edits of its own, which are to be given here, or something makes
                no sense.
            IndexOutOfRangeError: a layer, head, neuron, row, position or token that is not there.
            NotSupportedError: the model has nothing at a site, its weights are quantised or offloaded, or gradients
                are not finite.
            TooLargeError: more than the server computes at once.
        """
