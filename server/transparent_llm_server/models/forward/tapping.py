"""Finding the taps of a model: where plain modules show what TransformerLens' bridge shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from transparent_llm.errors import ModelRefusedError
from transparent_llm_server.models.forward.layer import Layer
from transparent_llm_server.models.forward.passes import Body, TappedPass, few_logits
from transparent_llm_server.models.forward.taps import Site, Tap, Taps
from transparent_llm_server.models.forward.tolerance import allowed_error, largest_error

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NoTapsError(Exception):
    """The plain model does not show all that its bridge does; the message says what."""


@dataclass(frozen=True)
class Tapping:
    """The search in one plain model, out of which its bridge was taken again."""

    hf_model: PreTrainedModel
    layers: Sequence[Layer]
    tokens: torch.Tensor
    mask: torch.Tensor
    bridged: Mapping[Site, torch.Tensor]
    """What the bridge showed of these tokens."""

    def found(self) -> TappedPass:
        """The plain model, tapped where it shows the same.

        Raises:
            NoTapsError: there is no such place for some tensor.
        """
        errors = []
        for body in _bodies(self.hf_model):
            try:
                return self._tapped(body)
            except NoTapsError as error:
                errors.append(error)
        raise errors[0]

    def _tapped(self, body: Body) -> TappedPass:
        """Also seen to show the same when no other candidate is looked at."""
        chosen = self._chosen(body)
        optional = [
            (Site(i, field), tap)
            for i, layer in enumerate(self.layers)
            for field, taps in layer.taps().items()
            for tap in taps[:1]
            if tap.is_optional
        ]
        taps = sorted([*chosen.items(), *optional], key=lambda found: not _is_first(found[0].field))
        tapped = TappedPass(body, taps, self.layers)
        try:
            shown = tapped.run(self.tokens, self.mask)
            _require_none([site for site in self.bridged if not self._is_same(site, shown[site])])
        except (NoTapsError, ModelRefusedError):
            tapped.remove()
            raise
        return tapped

    def _chosen(self, body: Body) -> dict[Site, Tap]:
        """Of each tensor the first candidate that shows it."""
        of_layers = [layer.taps() for layer in self.layers]
        candidates = {
            (site, n): tap for site in self.bridged for n, tap in enumerate(of_layers[site.layer][site.field])
        }
        taps = Taps(candidates.items())
        try:
            with taps.keeping() as shown:
                body(self.tokens, self.mask)
        finally:
            taps.remove()
        chosen: dict[Site, Tap] = {}
        for (site, n), tap in candidates.items():
            if site not in chosen and (site, n) in shown and self._is_same(site, shown[site, n]):
                chosen[site] = tap
        _require_none([site for site in self.bridged if site not in chosen])
        return chosen

    def _is_same(self, site: Site, shown: torch.Tensor) -> bool:
        """Whether it is what the bridge showed, at tokens."""
        layer = self.layers[site.layer]
        try:
            got, wanted = (layer.shaped(site.field, each, self.tokens.shape) for each in (shown, self.bridged[site]))
        except RuntimeError:  # so many elements cannot have that shape
            return False
        if got.shape != wanted.shape:
            return False
        got, wanted = (self._at_tokens(site, each) for each in (got, wanted))
        return largest_error(got, wanted) <= allowed_error(wanted, layer.dtype)

    def _at_tokens(self, site: Site, tensor: torch.Tensor) -> torch.Tensor:
        """Without padding: [token ...]; of a pattern [batch head query_pos key_pos] those of its queries."""
        by_position = tensor.transpose(1, 2) if site.field == "pattern" else tensor
        return by_position[self.mask.bool().to(tensor.device)]


def _is_first(field: str) -> bool:
    """Whether a tensor must be looked at before another one that is made of it and passes in the same module."""
    return field in ("pattern", "experts_out") or field.endswith("_norm_out")


def _bodies(hf_model: PreTrainedModel) -> Iterator[Body]:
    """What computes the blocks: the model below the unembedding, or all of it."""
    below = getattr(hf_model, hf_model.base_model_prefix, hf_model)
    if below is not hf_model:
        yield partial(_run, below, {})
    yield partial(_run, hf_model, few_logits(hf_model))


def _run(module: torch.nn.Module, settings: Mapping[str, int], tokens: torch.Tensor, mask: torch.Tensor) -> object:
    return module(tokens, attention_mask=mask, use_cache=False, **settings)


def _require_none(missing: Sequence[Site]) -> None:
    if missing:
        raise NoTapsError(", ".join(f"{site.field} of layer {site.layer}" for site in missing[:3]))
