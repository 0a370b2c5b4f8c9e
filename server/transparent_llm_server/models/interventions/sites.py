"""What a run has at a site: the tensor that an edit there would have met."""

from __future__ import annotations

import torch

from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.interventions.site import Site, SiteKind
from transparent_llm.runtime.indexing import checked_index
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.neurons import DenseNeurons


def checked_site(model: BridgedModel, site: Site) -> Site:
    """With indices from the beginning.

    Raises:
        IndexOutOfRangeError: a layer, head or neuron that is not there.
        NotSupportedError: the layer has nothing there.
    """
    layer = checked_index("layer", site.layer, len(model.layers))
    part, kind = model.layers[layer], site.kind
    if kind is SiteKind.RESIDUAL_AFTER_ATTN and part.is_parallel:
        raise _unsupported(site, "attention and feed-forward part read the same stream, there is none between them")
    needed = {SiteKind.ATTN_OUT: "attn_out", SiteKind.RESIDUAL_AFTER_ATTN: "attn_out", SiteKind.FFN_OUT: "ffn_out"}
    if kind in needed and needed[kind] not in part.hooks:
        raise _unsupported(site, "the layer has no such branch")
    if kind in (SiteKind.HEAD, SiteKind.PATTERN):
        if not part.has_heads:
            raise _unsupported(site, "the layer has no attention heads")
        return Site(kind, layer, head=checked_index("head", site.head or 0, model.n_heads))
    if kind is SiteKind.NEURONS:
        neurons = part.neurons
        if not isinstance(neurons, DenseNeurons):
            raise _unsupported(site, "the layer has no dense neurons; of a mixture of experts none can be edited")
        chosen = site.neurons and tuple(checked_index("neuron", each, neurons.count) for each in site.neurons)
        if chosen and len(set(chosen)) != len(chosen):
            raise InvalidRequestError(f"{site} names a neuron twice")
        return Site(kind, layer, neurons=chosen or None)
    if kind is SiteKind.RESIDUAL_OUT and layer < len(model.layers) - 1:
        return Site(SiteKind.RESIDUAL_IN, layer + 1)  # one tensor
    return Site(kind, layer)


def captured(model: BridgedModel, values: RunValues, site: Site) -> torch.Tensor:
    """Of a whole run [batch pos d], where d is d_model, d_head, neurons, or key positions."""
    site = checked_site(model, site)
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
        return _present(capture.pattern)[:, site.head or 0]
    if site.kind is SiteKind.HEAD:
        z = mixed(_present(capture.pattern), _present(capture.value))
        if capture.z is not None and capture.z_is_edited is not None:
            z = torch.where(capture.z_is_edited[..., None], capture.z, z)
        return z[:, :, site.head or 0]
    found = _present(capture.neurons)
    return found if site.neurons is None else found[:, :, list(site.neurons)]


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
