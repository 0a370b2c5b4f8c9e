"""What edits leave as it is: the tensors that a forward pass has before it comes to the first of their sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from transparent_llm.interventions import Intervention
from transparent_llm.interventions.site import SiteKind
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.capture import LayerCapture
from transparent_llm_server.models.interventions.sites import checked_site

_ALL = frozenset(field.name for field in fields(LayerCapture))
_OF_ATTENTION = frozenset({"residual_in", "pattern", "value", "attn_scale"})

_BEFORE: dict[SiteKind, frozenset[str]] = {
    SiteKind.PATTERN: frozenset({"residual_in", "value"}),
    SiteKind.HEAD: frozenset({"residual_in", "value", "pattern"}),
    SiteKind.ATTN_OUT: _OF_ATTENTION,
    SiteKind.RESIDUAL_AFTER_ATTN: _OF_ATTENTION,
    SiteKind.NEURONS: _OF_ATTENTION | {"attn_out"},
    SiteKind.FFN_OUT: _OF_ATTENTION | {"attn_out", "neurons", "ffn_scale"},
    SiteKind.RESIDUAL_OUT: _ALL,
}
"""Of the layer of a site, the fields of its capture that are computed before it. Of other sites: none."""


def untouched(model: BridgedModel, edits: Sequence[Intervention]) -> list[frozenset[str]]:
    """Of the layers from the first one on, the fields of their captures that these edits cannot change."""
    sites = [checked_site(model, edit.site) for edit in edits]
    first = min(site.layer for site in sites)
    at_first = [_BEFORE.get(site.kind, frozenset()) for site in sites if site.layer == first]
    return [*[_ALL] * first, frozenset.intersection(*at_first)]
