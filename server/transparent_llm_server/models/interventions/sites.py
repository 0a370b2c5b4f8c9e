"""What a run has at a site: the tensor that an edit there would have met."""

from __future__ import annotations

import torch

from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.interventions.site import NORM_SCALES, OF_HEADS, Site, SiteKind
from transparent_llm.runtime.indexing import checked_index, counted
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.layer import Layer

_PLACES = {kind: place for place, kind in NORM_SCALES.items()}
_STRANGE_NORM = "its norm does not divide by the size or the deviation of what it is given, times a weight"


def checked_site(model: BridgedModel, site: Site) -> Site:
    """With indices from the beginning.

    Raises:
        IndexOutOfRangeError: a layer, head or neuron that is not there.
        NotSupportedError: the layer has nothing there.
    """
    if site.kind is SiteKind.FINAL_NORM_SCALE:
        if model.final_norm is None:
            raise _unsupported(site, _STRANGE_NORM)
        return site
    layer = checked_index("layer", site.layer, len(model.layers))
    part, kind = model.layers[layer], site.kind
    if kind in _PLACES:
        return _checked_norm(part, Site(kind, layer))
    if kind is SiteKind.RESIDUAL_AFTER_ATTN and part.is_parallel:
        raise _unsupported(site, "attention and feed-forward part read the same stream, there is none between them")
    needed = {SiteKind.ATTN_OUT: "attn_out", SiteKind.RESIDUAL_AFTER_ATTN: "attn_out", SiteKind.FFN_OUT: "ffn_out"}
    if kind in needed and needed[kind] not in part.hooks:
        raise _unsupported(site, "the layer has no such branch")
    if kind in OF_HEADS:
        if not part.has_heads:
            raise _unsupported(site, "the layer has no attention heads")
        return Site(kind, layer, head=None if site.head is None else _checked_head(site.head, site, model))
    if kind is SiteKind.NEURONS:
        neurons = part.neurons
        if neurons is None:
            raise _unsupported(site, "the layer has no neurons that can be told apart")
        chosen = site.neurons and tuple(checked_index("neuron", each, neurons.count) for each in site.neurons)
        if chosen and len(set(chosen)) != len(chosen):
            raise InvalidRequestError(f"{site} names a neuron twice")
        return Site(kind, layer, neurons=chosen or None)
    if kind is SiteKind.RESIDUAL_OUT and layer < len(model.layers) - 1:
        return Site(SiteKind.RESIDUAL_IN, layer + 1)  # one tensor
    return Site(kind, layer)


def _checked_head(head: int, site: Site, model: BridgedModel) -> int:
    if site.kind not in (SiteKind.KEY, SiteKind.VALUE):
        return checked_index("head", head, model.n_heads)
    n_kv = model.layers[counted(site.layer, len(model.layers))].n_kv_heads
    shared = "" if n_kv == model.n_heads else f" (keys and values that {model.n_heads} query heads share)"
    return checked_index(f"{site.kind.value} head{shared}", head, n_kv)


def _checked_norm(part: Layer, site: Site) -> Site:
    place = _PLACES[site.kind]
    if place not in part.norms:
        raise _unsupported(site, "the layer has no norm there")
    if part.norm(place) is None:
        raise _unsupported(site, _STRANGE_NORM)
    is_shared = place == "ffn" and part.norms["ffn"] is part.norms.get("attn")
    return Site(SiteKind.NORM_SCALE_ATTN, site.layer) if is_shared else site


def captured(model: BridgedModel, values: RunValues, site: Site) -> torch.Tensor:
    """Of a whole run [batch pos d], where d is d_model, d_head, neurons, or key positions."""
    site = checked_site(model, site)
    if site.kind is SiteKind.FINAL_NORM_SCALE or site.kind in _PLACES:
        return _scale(model, values, site)
    layer, capture = site.layer, values.capture.layers[site.layer]
    if site.kind is SiteKind.RESIDUAL_IN:
        return capture.residual_in
    if site.kind is SiteKind.RESIDUAL_AFTER_ATTN:
        return values.residual_after_attn(layer).tensor()
    if site.kind is SiteKind.RESIDUAL_OUT:
        return values.residual_out(layer).tensor()
    if site.kind is SiteKind.ATTN_OUT:
        return _present(capture.attn_out)
    if site.kind is SiteKind.FFN_OUT:
        return _present(capture.ffn_out)
    if site.kind is SiteKind.PATTERN:
        pattern = _present(capture.pattern)
        return pattern.transpose(1, 2).flatten(2) if site.head is None else pattern[:, site.head]
    if site.kind is SiteKind.HEAD:
        z = mixed(_present(capture.pattern), _present(capture.value))
        if capture.z is not None and capture.z_is_edited is not None:
            z = torch.where(capture.z_is_edited[..., None], capture.z, z)
        return z.flatten(2) if site.head is None else z[:, :, site.head]
    if site.kind is SiteKind.VALUE:
        value = _present(capture.value)
        return value.flatten(2) if site.head is None else value[:, :, site.head]
    found = _present(capture.neurons)
    return found if site.neurons is None else found[:, :, list(site.neurons)]


def _scale(model: BridgedModel, values: RunValues, site: Site) -> torch.Tensor:
    """What a norm divided by [batch pos 1]: what it was frozen to, or what it has of its input."""
    if site.kind is SiteKind.FINAL_NORM_SCALE:
        frozen, stream, norm = values.capture.final_scale, values.capture.residual_out, model.final_norm
        assert norm is not None  # the site was checked
        return norm.scale(stream) if frozen is None else frozen
    part, capture, place = model.layers[site.layer], values.capture.layers[site.layer], _PLACES[site.kind]
    if place in ("attn_post", "ffn_post"):
        return _present(capture.attn_scale if place == "attn_post" else capture.ffn_scale)
    frozen = capture.attn_norm_scale if place == "attn" else capture.ffn_norm_scale
    if frozen is not None:
        return frozen
    norm = part.norm(place)
    assert norm is not None  # the site was checked
    reads_stream_in = place == "attn" or part.is_parallel
    return norm.scale(capture.residual_in if reads_stream_in else values.residual_after_attn(site.layer).tensor())


def mixed(pattern: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """What heads mix of the values [batch pos head d_head], as the model's own attention computes it."""
    n_shared = pattern.shape[1] // value.shape[2]
    by_head = value.transpose(1, 2).repeat_interleave(n_shared, dim=1)
    return torch.matmul(pattern, by_head).transpose(1, 2)


def _present(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None  # the site was checked
    return tensor


def _unsupported(site: Site, why: str) -> NotSupportedError:
    return NotSupportedError(f"{site} cannot be edited: {why}", metadata={"site": str(site)})
