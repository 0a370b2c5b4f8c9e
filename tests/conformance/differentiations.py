"""Gradients as scenarios ask for them, and what is answered to them (README.md)."""

from __future__ import annotations

from typing import Any

import torch

from conformance.edits import ObjectOf, edits_of, metric_of, site_of
from transparent_llm.analysis.differentiation import Differentiation, Edges, Path, SiteGradient
from transparent_llm.wire.gradients import expected, tensors_of

Fields = dict[str, Any]
Parts = dict[str, tuple[torch.Tensor, tuple[str, ...]]]
"""Tensors with the names of their axes, by the names that they have on the wire."""


def differentiated(llm: Any, request: Fields, object_of: ObjectOf) -> Parts:
    """What the gradients of a call give."""
    asked = Differentiation(
        metric_of(**request["metric"], object_of=object_of),
        tuple(_site_gradient(**site, object_of=object_of) for site in request.get("sites", ())),
        tuple(request.get("rows", ())),
        tuple(request.get("frozen", ())),
        _path(**request["path"], object_of=object_of) if "path" in request else None,
        tuple(edits_of(request.get("edits", ()), object_of)),
        _edges(**request["edges"], object_of=object_of) if "edges" in request else None,
    )
    tensors = tensors_of(llm.gradients(asked))
    named = zip(expected(asked, {}), tensors, strict=True)
    return {each.name: (tensor, tuple(each.dims)) for each, tensor in named}


def _site_gradient(
    *, site: list[Any], form: Any, object_of: ObjectOf, run: str | None = None, source_rows: Any = ()
) -> SiteGradient:
    return SiteGradient(site_of(site), form, None if run is None else object_of(run), tuple(source_rows))


def _path(
    *,
    steps: int,
    object_of: ObjectOf,
    zero: bool = False,
    token_id: int | None = None,
    run: str | None = None,
    site: Any = ("residual_in", 0),
) -> Path:
    baseline: Any = "zero" if zero else token_id if run is None else object_of(run)
    return Path(baseline, steps, site_of(site))


def _edges(*, run: str, object_of: ObjectOf, steps: int = 0, source_rows: Any = ()) -> Edges:
    return Edges(object_of(run), tuple(source_rows), steps)
