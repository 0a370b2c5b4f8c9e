"""Sites of edits on the wire."""

from __future__ import annotations

from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import Site
from transparent_llm.interventions.site import OF_HEADS, SiteKind
from transparent_llm.wire._gen import interventions_pb2 as pb

_KINDS = {kind: pb.SiteKind.Value(f"SITE_KIND_{kind.name}") for kind in SiteKind}
_KIND_BY_WIRE = {number: kind for kind, number in _KINDS.items()}


def site_to_wire(site: Site) -> pb.Site:
    """A site as a message."""
    kind = _KINDS[site.kind]
    all_heads = site.kind in OF_HEADS and site.head is None
    neurons = site.neurons or ()
    return pb.Site(kind=kind, layer=site.layer, head=site.head, neurons=neurons, all_heads=all_heads)  # type: ignore[arg-type]


def site_from_wire(message: pb.Site) -> Site:
    """A site out of a request.

    Raises:
        InvalidRequestError: it is absent, or makes no sense.
    """
    kind = _KIND_BY_WIRE.get(message.kind)
    if kind is None:
        raise InvalidRequestError("the site of an edit is absent, or of a kind that this server does not know")
    has_head = kind in OF_HEADS
    if message.HasField("head") + message.all_heads != has_head:
        raise InvalidRequestError(f"a site of kind {kind.value} has {'a head, or all' if has_head else 'no head'}")
    if (message.neurons and kind is not SiteKind.NEURONS) or (message.layer and kind is SiteKind.FINAL_NORM_SCALE):
        raise InvalidRequestError(f"a site of kind {kind.value} has no {'neurons' if message.neurons else 'layer'}")
    return Site(
        kind,
        message.layer,
        head=message.head if message.HasField("head") else None,
        neurons=tuple(message.neurons) or None,
    )
