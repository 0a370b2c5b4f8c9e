"""Two engines that run a batch through a model and show what passes in it: TransformerLens' bridge, or taps.

The bridge puts modules of its own into the model and computes attention itself, in more and smaller steps. Taps are
hooks on the plain model's modules, which cost next to nothing; they are used where they are seen to show the same.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from transparent_llm.errors import ModelRefusedError, NotSupportedError
from transparent_llm_server.models.forward.blocks import Blocks
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled
from transparent_llm_server.models.forward.layer import Layer
from transparent_llm_server.models.forward.score_products import FIELDS, ScoreProducts
from transparent_llm_server.models.forward.taps import Rewrite, Site, Tap, Taps

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel


Rewrites = Mapping[Site, Rewrite]
"""What becomes of tensors on their way."""

_Shown = Mapping[Site, torch.Tensor]

Body = Callable[[torch.Tensor, torch.Tensor], object]
"""Computes the blocks of a plain model, from tokens and mask, and as little else as it can."""


@dataclass(frozen=True)
class Section:
    """Of a pass: some of its blocks, and what is kept of them."""

    wanted: frozenset[Site]
    start: int = 0
    """The first block that is computed."""

    stream: torch.Tensor | None = None
    """What enters it [batch pos d_model], where it is not the first of the model."""

    stop: int | None = None
    """The first block that is not computed; None: all are to the end."""


class _EnoughError(Exception):
    """All that is wanted has passed."""


class ForwardPass(ABC):
    """Of one model. One at a time: what passes is kept in one place."""

    engine: str
    """As `ServerInfo` names it."""

    @abstractmethod
    def run(self, tokens: torch.Tensor, mask: torch.Tensor, rewrites: Rewrites | None = None) -> _Shown:
        """Run token ids [batch pos] with their mask: every tensor that the layers' values need, as the model has it.

        Raises:
            ModelRefusedError: a tensor did not show.
            NotSupportedError: this engine rewrites nothing.
        """

    @abstractmethod
    def section(self, tokens: torch.Tensor, mask: torch.Tensor, rewrites: Rewrites, section: Section) -> _Shown:
        """Run some blocks: what is wanted of them, and what the rewrites of their layers need.

        Raises:
            NotSupportedError: this engine rewrites nothing.
        """

    @property
    def blocks(self) -> Blocks | None:
        """Of which lower ones can be left out; None: of none."""
        return None


class BridgePass(ForwardPass):
    """Through TransformerLens' bridge, which must stand in the model."""

    engine = "bridge"

    def __init__(self, bridge: TransformerBridge, hf_model: PreTrainedModel, layers: Sequence[Layer]) -> None:
        self._bridge, self._layers = bridge, layers
        self._few_logits = few_logits(hf_model)
        for block in bridge.blocks:
            block.register_forward_pre_hook(raise_if_cancelled)
        self._names = {Site(i, field): name for i, layer in enumerate(layers) for field, name in layer.hooks.items()}
        self._names[Site(len(layers) - 1, "residual_out")] = last_hook(layers)
        self._is_captured = frozenset(self._names.values()).__contains__  # a list would hook every alias as well

    def run(self, tokens: torch.Tensor, mask: torch.Tensor, rewrites: Rewrites | None = None) -> _Shown:
        """Through the bridge's hooks."""
        if rewrites:
            raise _no_edits()
        try:
            _, cache = self._bridge.run_with_cache(
                tokens,
                attention_mask=mask,
                names_filter=self._is_captured,
                return_cache_object=False,
                output_attentions=False,
                **self._few_logits,
            )
        finally:
            for layer in self._layers:
                layer.forget()
        found = {site: cache[name] for site, name in self._names.items() if name in cache}
        _require_all(self._names, found)
        return {site: self._layers[site.layer].as_captured(site.field, tensor) for site, tensor in found.items()}

    def section(self, tokens: torch.Tensor, mask: torch.Tensor, rewrites: Rewrites, section: Section) -> _Shown:  # noqa: ARG002
        """Nothing can be rewritten."""
        raise _no_edits()


class TappedPass(ForwardPass):
    """Through the plain model, by hooks on its own modules."""

    engine = "taps"

    def __init__(self, body: Body, taps: Sequence[tuple[Site, Tap]], layers: Sequence[Layer]) -> None:
        self._body, self._layers = body, layers
        self._sites = tuple(site for site, tap in taps if not tap.is_optional)
        self._cancelling = [layer.plain.register_forward_pre_hook(raise_if_cancelled) for layer in layers]
        self._taps = Taps(taps)
        self._blocks = Blocks([layer.plain for layer in layers])

    def run(self, tokens: torch.Tensor, mask: torch.Tensor, rewrites: Rewrites | None = None) -> _Shown:
        """Through the taps."""
        with ExitStack() as stack:
            if rewrites and any(site.field in FIELDS for site in rewrites):
                products = stack.enter_context(ScoreProducts(rewrites, self._layers))
                rewrites = products.rewrites
            kept = stack.enter_context(self._taps.keeping(rewrites))
            self._body(tokens, mask)
        _require_all(self._sites, kept)
        return kept

    def section(self, tokens: torch.Tensor, mask: torch.Tensor, rewrites: Rewrites, section: Section) -> _Shown:
        """Through the taps of layers that something is wanted of."""
        of_layers = {site.layer for site in rewrites}
        wanted = section.wanted | {site for site in self._sites if site.layer in of_layers}
        made = dict(rewrites)
        if section.stop is not None:
            entry = Site(section.stop, "residual_in")
            made[entry] = partial(_stopped, entry, made.get(entry))
        with ExitStack() as stack:
            if any(site.field in FIELDS for site in made):
                products = stack.enter_context(ScoreProducts(made, self._layers))
                made = products.rewrites
            if section.stream is not None:
                stack.enter_context(self._blocks.begun_at(section.start, section.stream))
            kept = stack.enter_context(self._taps.keeping(made, wanted))
            stack.enter_context(suppress(_EnoughError))
            self._body(tokens, mask)
        return kept

    @property
    def blocks(self) -> Blocks:
        """All of them."""
        return self._blocks

    def remove(self) -> None:
        """Take its hooks off the model."""
        self._taps.remove()
        for handle in self._cancelling:
            handle.remove()


def _stopped(
    entry: Site, rewrite: Rewrite | None, tensor: torch.Tensor, kept: dict[Site, torch.Tensor]
) -> torch.Tensor:
    kept[entry] = tensor if rewrite is None else rewrite(tensor, kept)
    raise _EnoughError


def _no_edits() -> NotSupportedError:
    return NotSupportedError("this model runs through TransformerLens' bridge, where runs cannot be edited")


def last_hook(layers: Sequence[Layer]) -> str:
    """The bridge's name for the stream as it leaves the last block."""
    return f"blocks.{len(layers) - 1}.hook_resid_post"


def few_logits(hf_model: PreTrainedModel) -> dict[str, int]:
    """What makes a model compute few of its logits, if it can: they are derived when somebody asks."""
    takes = "logits_to_keep" in inspect.signature(hf_model.forward).parameters
    return {"logits_to_keep": 1} if takes else {}


def _require_all(wanted: Collection[Site], found: Mapping[Site, torch.Tensor]) -> None:
    missing = [site for site in wanted if site not in found]
    if missing:
        names = ", ".join(f"{site.field} of layer {site.layer}" for site in missing[:3])
        raise ModelRefusedError(f"{names} did not show in a forward pass; the model is not served")
