"""A sparse autoencoder: from values of a site to features and back. A transcoder: to values of another site."""

from __future__ import annotations

import torch
from jaxtyping import Float

from transparent_llm.description import SaeDescription
from transparent_llm.interventions.site import Site, name_of
from transparent_llm_server.models.saes.settings import Activation, Normalization, SaeSettings
from transparent_llm_server.models.saes.weights import SaeFolder

_EPSILON = 1e-5
"""Added to the deviation that layer_norm divides by."""


class Sae:
    """Its weights, in float32 at least, beside those of the model."""

    def __init__(
        self,
        name: str,
        site: Site,
        output_site: Site,
        settings: SaeSettings,
        weights: dict[str, torch.Tensor],
        digest: str,
    ) -> None:
        self.name, self.site, self.output_site, self.digest = name, site, output_site, digest
        self._settings, self._weights = settings, weights
        self._norms = weights["W_dec"].norm(dim=1) if settings.rescales else None

    @classmethod
    def load(
        cls, folder: SaeFolder, name: str, site: Site, output_site: Site, dtype: torch.dtype, device: torch.device
    ) -> Sae:
        """From a folder, in the type of the model where that is float64, otherwise in float32 or as it is stored.

        Raises:
            ModelRefusedError: numbers that are not finite, or a file that was changed meanwhile.
            TooLargeError: there is no memory for it.
        """
        wide = torch.float64 if folder.is_double or dtype == torch.float64 else torch.float32
        weights, digest = folder.load(wide, device)
        return cls(name, site, output_site, folder.settings, weights, digest)

    @property
    def n_features(self) -> int:
        """How many it has."""
        return self._settings.d_sae

    @property
    def nbytes(self) -> int:
        """Of its weights."""
        return sum(weight.nbytes for weight in self._weights.values())

    def describe(self) -> SaeDescription:
        """What everyone may know of it."""
        settings = self._settings
        return SaeDescription(
            name=self.name,
            site=name_of(self.site),
            output_site=name_of(self.output_site),
            architecture=settings.architecture,
            d_in=settings.d_in,
            d_sae=settings.d_sae,
            d_out=settings.d_out,
            digest=self.digest,
            weight_bytes=self.nbytes,
        )

    def encode(self, x: Float[torch.Tensor, "n d_in"]) -> Float[torch.Tensor, "n d_sae"]:
        """Activations of all features, 0 where they are not active."""
        weights = self._weights
        given = self._normalized(x.to(weights["W_enc"]))[0]
        if self._settings.subtracts_b_dec:
            given = given - weights["b_dec"]
        products = given @ weights["W_enc"]
        if self._settings.activation is Activation.GATED:
            magnitudes = (products * weights["r_mag"].exp() + weights["b_mag"]).relu()
            return magnitudes * (products + weights["b_gate"] > 0)
        hidden = products + weights["b_enc"]
        if self._norms is not None:
            hidden = hidden * self._norms
        if self._settings.activation is Activation.THRESHOLD:
            return hidden.relu() * (hidden > weights["threshold"])
        return hidden.relu() if self._settings.k is None else _largest(hidden, self._settings.k)

    def decode(
        self, activations: Float[torch.Tensor, "n d_sae"], x: Float[torch.Tensor, "n d_in"]
    ) -> Float[torch.Tensor, "n d_out"]:
        """What the features stand for, of activations that `x` gave."""
        weights = self._weights
        if self._norms is not None:
            activations = activations / self._norms.clamp_min(torch.finfo(self._norms.dtype).tiny)
        out = activations @ weights["W_dec"] + weights["b_dec"]
        given = x.to(weights["W_enc"])
        if self._settings.has_skip:
            out = out + given @ weights["W_skip"].T
        _, shift, scale = self._normalized(given)
        return out * scale + shift

    def clamped(
        self, feature: int, least: float, most: float, x: Float[torch.Tensor, "n d_in"]
    ) -> Float[torch.Tensor, "n d_in"]:
        """Values with the activation of a feature brought between two bounds, and all else that is in them kept."""
        before = self.encode(x)[:, feature]
        row = self._weights["W_dec"][feature]
        if self._norms is not None:
            row = row / self._norms[feature].clamp_min(torch.finfo(row.dtype).tiny)
        scale = self._normalized(x.to(row))[2]
        added = (before.clamp(least, most) - before)[:, None] * row * scale
        return x + added.to(x)

    def direction(self, feature: int, direction: str) -> Float[torch.Tensor, "d"]:
        """The row of the decoder, or the column of the encoder."""
        weights = self._weights
        return (weights["W_dec"][feature] if direction == "decoder" else weights["W_enc"][:, feature]).clone()

    def _normalized(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What is encoded of `x`, and the shift and scale that undo it [n 1]."""
        shift, scale = x.new_zeros(len(x), 1), x.new_ones(len(x), 1)
        if self._settings.normalization is Normalization.CONSTANT_NORM:
            scale = x.norm(dim=1, keepdim=True) / self._settings.d_in**0.5
            return x / torch.where(scale == 0, 1.0, scale), shift, scale
        if self._settings.normalization is Normalization.LAYER_NORM:
            shift, scale = x.mean(dim=1, keepdim=True), x.std(dim=1, keepdim=True)
            return (x - shift) / (scale + _EPSILON), shift, scale
        return x, shift, scale


def _largest(hidden: torch.Tensor, k: int) -> torch.Tensor:
    found = hidden.topk(k, dim=1)
    return torch.zeros_like(hidden).scatter_(1, found.indices, found.values.relu())
