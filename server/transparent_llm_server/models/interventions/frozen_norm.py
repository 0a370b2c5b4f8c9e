"""A norm of a layer that divides by something else than it would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from transparent_llm.errors import NotSupportedError
from transparent_llm_server.models.forward.layer import Layer
from transparent_llm_server.models.forward.norms import Norm
from transparent_llm_server.models.forward.taps import Rewrite
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.forward.tolerance import allowed_error, largest_error

_Kept = dict[Any, torch.Tensor]

_Scale = Callable[[torch.Tensor], torch.Tensor]
"""What a norm divides by, of what it would [batch pos 1]: the same tensor, if that is it."""

_FIELDS = {
    "attn": "attn_norm_scale",
    "ffn": "ffn_norm_scale",
    "attn_post": "attn_scale",
    "ffn_post": "ffn_scale",
}
"""Place of a norm -> field of a capture for what it divides by."""


class FrozenNorm:
    """One norm in one forward pass."""

    def __init__(
        self,
        layer: Layer,
        index: int,
        place: str,
        norm: Norm,
        batch_pos: tuple[int, ...],
        frozen: _Scale,
        *,
        keeps: bool,
    ) -> None:
        self._layer, self._index, self._place, self._norm = layer, index, place, norm
        self._batch_pos, self._frozen, self._keeps = batch_pos, frozen, keeps
        self._own: torch.Tensor | None = None

    @property
    def rewrites(self) -> dict[Passing, Rewrite]:
        """Of what it is given and of what it gives."""
        names = f"{self._place}_norm_in", f"{self._place}_norm_out"
        return {Passing(self._index, names[0]): self.given, Passing(self._index, names[1]): self.gives}

    def given(self, x: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """Look at what it divides by."""
        kept.pop(self._at(f"{self._place}_norm_in"), None)
        of_post_norm = kept.get(self._at(_FIELDS[self._place]))
        shaped = x.reshape(*self._batch_pos, -1)
        if of_post_norm is None:
            self._require_stream(shaped, kept)
            self._own = self._norm.scale(shaped)
        else:
            self._own = of_post_norm.reshape(*self._batch_pos, 1)
        return x

    def gives(self, y: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """What it gives where it divides by what is frozen."""
        kept.pop(self._at(f"{self._place}_norm_out"), None)
        own = self._own
        assert own is not None  # what it is given passes first
        scale = self._frozen(own)
        if scale is not own or self._keeps:
            kept[self._at(_FIELDS[self._place])] = scale
        if scale is own:
            return y
        return self._norm.rescaled(y.reshape(*self._batch_pos, -1), own, scale).reshape(y.shape)

    def _require_stream(self, x: torch.Tensor, kept: _Kept) -> None:
        """What is frozen is found out of the residual stream of the run that it is taken from."""
        stream = kept[self._at("residual_in")].reshape(x.shape)
        if self._place == "ffn" and not self._layer.is_parallel:
            middle = kept.get(self._at("residual_mid"))
            stream = stream + kept[self._at("attn_out")].reshape(x.shape) if middle is None else middle
        if not largest_error(x, stream) <= allowed_error(stream, self._layer.dtype):
            raise NotSupportedError(
                f"the scale of the norm before {self._place} of layer {self._index} cannot be frozen: it is given "
                "something else than the residual stream"
            )

    def _at(self, name: str) -> Passing:
        return Passing(self._index, name)
