"""Where a run can be changed: a tensor of one layer that is on the way from tokens to logits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import kind_of, listed, quoted
from transparent_llm.runtime.indexing import integer


class SiteKind(Enum):
    """What stands at a site, by the name that the contract has for it."""

    RESIDUAL_IN = "residual_in"
    RESIDUAL_AFTER_ATTN = "residual_after_attn"
    RESIDUAL_OUT = "residual_out"
    ATTN_OUT = "attn_out"
    FFN_OUT = "ffn_out"
    HEAD = "head"
    PATTERN = "pattern"
    NEURONS = "neurons"
    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    NORM_SCALE_ATTN = "norm_scale_attn"
    NORM_SCALE_FFN = "norm_scale_ffn"
    NORM_SCALE_ATTN_POST = "norm_scale_attn_post"
    NORM_SCALE_FFN_POST = "norm_scale_ffn_post"
    FINAL_NORM_SCALE = "final_norm_scale"


OF_HEADS = (SiteKind.HEAD, SiteKind.PATTERN, SiteKind.QUERY, SiteKind.KEY, SiteKind.VALUE)
"""Of one head, or of all heads of a layer."""

NORM_SCALES = {
    "attn": SiteKind.NORM_SCALE_ATTN,
    "ffn": SiteKind.NORM_SCALE_FFN,
    "attn_post": SiteKind.NORM_SCALE_ATTN_POST,
    "ffn_post": SiteKind.NORM_SCALE_FFN_POST,
}
"""Of the norms of a layer, by what they stand before or after."""

ONLY_FROZEN = (*NORM_SCALES.values(), SiteKind.FINAL_NORM_SCALE)
"""Kinds of sites that other operations have no meaning for."""


_LONGEST_PLACE = 6
"""Digits of a layer or head in a name."""


@dataclass(frozen=True)
class Site:
    """A tensor of one layer. Made by the functions of this module."""

    kind: SiteKind
    layer: int
    """Negative ones count from the end."""

    head: int | None = None
    """Of HEAD, PATTERN and QUERY, a query head; of KEY and VALUE one that query heads share. None: all of the layer."""

    neurons: tuple[int, ...] | None = None
    """Of NEURONS, those that are changed; None: all."""

    def __str__(self) -> str:
        if self.kind is SiteKind.FINAL_NORM_SCALE:
            return "final_norm_scale()"
        for norm, kind in NORM_SCALES.items():
            if self.kind is kind:
                return f"norm_scale({self.layer}, {norm!r})"
        more = "" if self.head is None else f", {self.head}"
        more += "" if self.neurons is None else f", {listed(self.neurons)}"
        return f"{self.kind.value}({self.layer}{more})"


READ_BY_SAES = (
    SiteKind.RESIDUAL_IN,
    SiteKind.RESIDUAL_AFTER_ATTN,
    SiteKind.RESIDUAL_OUT,
    SiteKind.ATTN_OUT,
    SiteKind.FFN_OUT,
    SiteKind.HEAD,
    SiteKind.NEURONS,
)
"""Kinds of sites that a sparse autoencoder can be of: as wide in every run, and stored."""


def site_named(text: str) -> Site:
    """The site of a sparse autoencoder from its name: KIND.LAYER, or KIND.LAYER.HEAD; "residual_out.1", "head.3.5".

    Raises:
        InvalidRequestError: it names none that a sparse autoencoder can be of.
    """
    kinds = {kind.value: kind for kind in READ_BY_SAES}
    kind, *places = text.split(".")
    most = 2 if kind == SiteKind.HEAD.value else 1
    if kind not in kinds or not 1 <= len(places) <= most or not all(_is_place(place) for place in places):
        raise InvalidRequestError(
            f"{quoted(text)} is no site of a sparse autoencoder: write KIND.LAYER, as residual_out.1, where KIND is "
            f"one of {', '.join(kinds)}; head.LAYER.HEAD is one head"
        )
    layer, *head = (int(place) for place in places)
    return Site(kinds[kind], layer, head=head[0] if head else None)


def name_of(site: Site) -> str:
    """What `site_named` takes for it."""
    head = () if site.head is None else (site.head,)
    return ".".join(map(str, (site.kind.value, site.layer, *head)))


def _is_place(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_PLACE


def residual_in(layer: int) -> Site:
    """The residual stream as it enters a block [pos d_model]; that of layer 0 is the embedding."""
    return Site(SiteKind.RESIDUAL_IN, integer("layer", layer))


def residual_after_attn(layer: int) -> Site:
    """The residual stream between attention and feed-forward part [pos d_model]. Blocks that compute both side by side
    have none."""
    return Site(SiteKind.RESIDUAL_AFTER_ATTN, integer("layer", layer))


def residual_out(layer: int) -> Site:
    """The residual stream as it leaves a block [pos d_model]: `residual_in(layer + 1)` is the same tensor."""
    return Site(SiteKind.RESIDUAL_OUT, integer("layer", layer))


def attn_out(layer: int) -> Site:
    """What attention adds to the residual stream [pos d_model], with its bias, any norm after it and multiplier."""
    return Site(SiteKind.ATTN_OUT, integer("layer", layer))


def ffn_out(layer: int) -> Site:
    """What the feed-forward part adds to the residual stream [pos d_model], with bias, norm and multiplier."""
    return Site(SiteKind.FFN_OUT, integer("layer", layer))


def head(layer: int, head: int | None = None) -> Site:
    """What a head has mixed of the values [pos d_head] ("z"), before its output weights. A norm after attention is
    computed of the changed sum.

    Args:
        layer: Of the head.
        head: A query head. None: all heads of the layer, one after the other [pos n_heads * d_head].
    """
    return Site(SiteKind.HEAD, integer("layer", layer), head=None if head is None else integer("head", head))


def pattern(layer: int, head: int | None = None) -> Site:
    """Attention probabilities of a head, after the softmax [query_pos key_pos]. `positions` of an edit are queries.
    Their rows need not sum to 1 afterwards; what a query may not see stays 0.

    Args:
        layer: Of the head.
        head: A query head. None: all heads of the layer, one after the other [query_pos n_heads * key_pos].
    """
    return Site(SiteKind.PATTERN, integer("layer", layer), head=None if head is None else integer("head", head))


def norm_scale(layer: int, norm: str) -> Site:
    """What a norm divides each position by [pos 1]: the deviation of its input from its mean, or its size. It can be
    frozen, which makes the norm linear: a norm that takes off the mean goes on to take off that of its input.

    Args:
        layer: Of the norm.
        norm: "attn" or "ffn", before that part; "attn_post" or "ffn_post", between it and the residual stream, where a
            model has one there. Where both parts have one norm before them, "attn" and "ffn" are the same.

    Raises:
        InvalidRequestError: another norm.
    """
    if not isinstance(norm, str) or norm not in NORM_SCALES:
        raise InvalidRequestError(f"norm must be one of {', '.join(map(repr, NORM_SCALES))}, got {kind_of(norm)}")
    return Site(NORM_SCALES[norm], integer("layer", layer))


def final_norm_scale() -> Site:
    """What the norm before the unembedding divides each position by [pos 1]. It can be frozen: see `norm_scale`."""
    return Site(SiteKind.FINAL_NORM_SCALE, 0)


def query(layer: int, head: int | None = None) -> Site:
    """The query of a head, as it is multiplied with keys [pos d_head]: after rotary embeddings, any norm, and a factor
    where the model has it before the product (OPT). Attention is computed of the changed one.

    Args:
        layer: Of the head.
        head: A query head. None: all heads of the layer, one after the other [pos n_heads * d_head].
    """
    return Site(SiteKind.QUERY, integer("layer", layer), head=None if head is None else integer("head", head))


def key(layer: int, head: int | None = None) -> Site:
    """The key of a head, as queries are multiplied with it [pos d_head]: after rotary embeddings and any norm.

    Args:
        layer: Of the head.
        head: Which of the keys: where query heads share them (grouped queries), there are fewer. None: all of the
            layer, one after the other [pos n_kv_heads * d_head].
    """
    return Site(SiteKind.KEY, integer("layer", layer), head=None if head is None else integer("head", head))


def value(layer: int, head: int | None = None) -> Site:
    """The value of a head, which its pattern mixes [pos d_head].

    Args:
        layer: Of the head.
        head: Which of the values: where query heads share them (grouped queries), there are fewer. None: all of the
            layer, one after the other [pos n_kv_heads * d_head].
    """
    return Site(SiteKind.VALUE, integer("layer", layer), head=None if head is None else integer("head", head))


def neurons(layer: int, neurons: Iterable[int] | None = None) -> Site:
    """Activations of neurons right after the activation function, gated: act(gate) * up [pos neuron]. Those of experts
    are numbered as in `neuron_activations`, and have the weight of the router: 0 where it did not choose.

    Args:
        layer: Of the neurons.
        neurons: Their indices. None: all neurons of the layer.
    """
    if neurons is None:
        return Site(SiteKind.NEURONS, integer("layer", layer))
    chosen = tuple(integer("neurons", each) for each in neurons)
    if not chosen:
        raise InvalidRequestError("neurons is empty: name at least one, or leave it out for all")
    return Site(SiteKind.NEURONS, integer("layer", layer), neurons=chosen)
