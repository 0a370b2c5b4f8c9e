"""Gradients on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from transparent_llm.analysis.differentiation import (
    EDGE_DIMS,
    MOST_SITES,
    MOST_STEPS,
    Differentiation,
    Edges,
    EdgeScores,
    Form,
    Frozen,
    Gradients,
    IntegratedGradients,
    Path,
    SiteGradient,
)
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm.wire import interventions, sites
from transparent_llm.wire._gen import gradients_pb2 as pb
from transparent_llm.wire.expected import Expected
from transparent_llm.wire.interventions import Named, Sources, require_known
from transparent_llm.wire.sweeps import metric_from_wire, metric_to_wire

_FORMS: dict[Form, int] = {
    "gradient": pb.GRADIENT_FORM_GRADIENT,
    "times_activation": pb.GRADIENT_FORM_TIMES_ACTIVATION,
    "times_difference": pb.GRADIENT_FORM_TIMES_DIFFERENCE,
    "norm": pb.GRADIENT_FORM_NORM,
}
_FROZEN: dict[Frozen, int] = {
    "patterns": pb.FROZEN_PART_PATTERNS,
    "norm_scales": pb.FROZEN_PART_NORM_SCALES,
    "attention": pb.FROZEN_PART_ATTENTION,
    "neurons": pb.FROZEN_PART_NEURONS,
}
_FORM_BY_WIRE = {number: form for form, number in _FORMS.items()}
_FROZEN_BY_WIRE = {number: part for part, number in _FROZEN.items()}


def to_wire(asked: Differentiation, run_id: str, run_id_of: Named) -> pb.GradientsRequest:
    """A request for these gradients of a run.

    Raises:
        InvalidRequestError: a vector of a type that does not travel.
    """
    request = pb.GradientsRequest(run_id=run_id, rows=asked.rows)
    request.metric.CopyFrom(metric_to_wire(asked.metric, run_id_of))
    for each in asked.sites:
        message = request.sites.add(form=_FORMS[each.form], source_rows=each.source_rows)
        message.site.CopyFrom(sites.site_to_wire(each.site))
        if each.source is not None:
            message.run_id = run_id_of(each.source)
    request.frozen.extend(_FROZEN[part] for part in asked.frozen)  # type: ignore[misc]  # numbers of the enum
    if asked.path is not None:
        request.path.steps = asked.path.steps
        if asked.path.baseline == "zero":
            request.path.zero = True
        elif isinstance(asked.path.baseline, int):
            request.path.token_id = asked.path.baseline
        else:
            request.path.run_id = run_id_of(asked.path.baseline)
        request.path.site.CopyFrom(sites.site_to_wire(asked.path.site))
    request.edits.extend(interventions.to_wire(asked.edits, run_id_of))
    if asked.edges is not None:
        edges = request.edges
        edges.run_id, edges.steps = run_id_of(asked.edges.source), asked.edges.steps
        edges.source_rows.extend(asked.edges.source_rows)
    return request


def from_wire(request: pb.GradientsRequest, sources: Sources) -> Differentiation:
    """What a request asks for.

    Raises:
        InvalidRequestError: something is absent, unknown or makes no sense.
        TooLargeError: too many sites or edits.
        NotFoundError: a run that is not there.
    """
    if len(request.sites) > MOST_SITES:
        raise TooLargeError(
            f"gradients have at most {MOST_SITES} sites, got {len(request.sites)}; ask for them in several calls",
            metadata={"needed": str(len(request.sites)), "allowed": str(MOST_SITES)},
        )
    require_known(request)
    if request.options.slices or request.options.dtype or request.options.encoding:
        raise InvalidRequestError("gradients come whole and in float32: slices, dtype and encoding must be absent")
    if not request.HasField("metric"):
        raise InvalidRequestError("gradients are of a metric, which is absent")
    unknown = next((part for part in request.frozen if part not in _FROZEN_BY_WIRE), None)
    if unknown is not None:
        raise InvalidRequestError(f"a frozen part that this server does not know: {unknown}")
    return Differentiation(
        metric_from_wire(request.metric, sources),
        tuple(_site_from_wire(each, sources) for each in request.sites),
        tuple(request.rows),
        tuple(_FROZEN_BY_WIRE[part] for part in request.frozen),
        _path_from_wire(request.path, sources) if request.HasField("path") else None,
        interventions.from_wire(request.edits, sources),
        _edges_from_wire(request.edges, sources) if request.HasField("edges") else None,
    )


def expected(asked: Differentiation, sizes: dict[str, int]) -> list[Expected]:
    """What must come: named tensors, with these sizes of axes as far as they are known."""
    numbers = ["metric"] if asked.path is None else ["metric", "baseline_metric", "delta"]
    found = [Expected(name, ("batch",), sizes, torch.float64) for name in numbers]
    if asked.path is not None:
        return [*found, Expected("integrated_gradients", asked.path.dims, sizes, torch.float32)]
    if asked.edges is not None:
        return [*found, *(Expected(name, dims, sizes, torch.float32) for name, dims in EDGE_DIMS.items())]
    return [*found, *(Expected(name_of(each), each.dims, sizes, torch.float32) for each in asked.sites)]


def answered(tensors: Sequence[torch.Tensor], asked: Differentiation) -> Gradients:
    """The answer of tensors in the order of `expected`."""
    metric, *rest = tensors
    if asked.edges is not None:
        return Gradients(metric, (), edges=EdgeScores(*rest))
    return Gradients(metric, tuple(rest)) if asked.path is None else Gradients(metric, (), IntegratedGradients(*rest))


def tensors_of(found: Gradients) -> list[torch.Tensor]:
    """The tensors of an answer, in that order."""
    return [found.metric, *found.sites, *(found.integrated or ()), *(found.edges or ())]


def name_of(asked: SiteGradient) -> str:
    """Of its tensor."""
    return str(asked.site)[:128]


def _site_from_wire(message: pb.GradientSite, sources: Sources) -> SiteGradient:
    form = _FORM_BY_WIRE.get(message.form)
    if form is None:
        raise InvalidRequestError("the form of a gradient is absent, or one that this server does not know")
    if message.run_id and form != "times_difference":  # before a run is looked for in vain
        raise InvalidRequestError(f"a gradient of form {form!r} has no source")
    source = sources.run_of(message.run_id) if message.run_id else None
    return SiteGradient(sites.site_from_wire(message.site), form, source, tuple(message.source_rows))


def _edges_from_wire(message: pb.GradientEdges, sources: Sources) -> Edges:
    if message.steps > MOST_STEPS:
        raise InvalidRequestError(f"edges have 0 to {MOST_STEPS} steps, got {message.steps}")
    return Edges(sources.run_of(message.run_id), tuple(message.source_rows), message.steps)


def _path_from_wire(message: pb.GradientPath, sources: Sources) -> Path:
    given = message.WhichOneof("baseline")
    if given is None or (given == "zero" and not message.zero):
        raise InvalidRequestError("the baseline of a path is absent")
    if not 1 <= message.steps <= MOST_STEPS:
        raise InvalidRequestError(f"a path has 1 to {MOST_STEPS} steps, got {message.steps}")
    baseline: Literal["zero"] | int | TransparentLlm = "zero"
    if given != "zero":
        baseline = message.token_id if given == "token_id" else sources.run_of(message.run_id)
    if not message.HasField("site"):
        return Path(baseline, message.steps)
    return Path(baseline, message.steps, sites.site_from_wire(message.site))
