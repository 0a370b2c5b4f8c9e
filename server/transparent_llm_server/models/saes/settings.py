"""What a sparse autoencoder's `cfg.json` says, as SAELens writes it, before any of its weights is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from transparent_llm.errors import ModelRefusedError
from transparent_llm_server.models.loading.refusal import printable, refused

CONFIG = "cfg.json"
_LARGEST = 2**27
"""Of a width, or of how many features there are."""


class Activation(Enum):
    """What becomes of the products with the encoder."""

    RELU = "relu"
    TOPK = "topk"
    """ReLU of the k largest of a position."""

    THRESHOLD = "threshold"
    """ReLU of those that are over a threshold."""

    GATED = "gated"
    """ReLU of products of their own, of those whose gate is open."""


class Normalization(Enum):
    """What is done to each position before it is encoded, and undone after it is decoded."""

    NONE = "none"
    LAYER_NORM = "layer_norm"
    CONSTANT_NORM = "constant_norm_rescale"


@dataclass(frozen=True)
class _Architecture:
    activation: Activation
    is_transcoder: bool = False
    has_skip: bool = False


ARCHITECTURES: Mapping[str, _Architecture] = {
    "standard": _Architecture(Activation.RELU),
    "topk": _Architecture(Activation.TOPK),
    "batchtopk": _Architecture(Activation.THRESHOLD),
    "matryoshka_batchtopk": _Architecture(Activation.THRESHOLD),
    "jumprelu": _Architecture(Activation.THRESHOLD),
    "gated": _Architecture(Activation.GATED),
    "transcoder": _Architecture(Activation.RELU, is_transcoder=True),
    "skip_transcoder": _Architecture(Activation.RELU, is_transcoder=True, has_skip=True),
    "jumprelu_transcoder": _Architecture(Activation.THRESHOLD, is_transcoder=True),
    "jumprelu_skip_transcoder": _Architecture(Activation.THRESHOLD, is_transcoder=True, has_skip=True),
}
"""By the names that SAELens has for them."""


@dataclass(frozen=True)
class SaeSettings:
    """How it computes."""

    architecture: str
    activation: Activation
    d_in: int
    d_sae: int
    d_out: int
    is_transcoder: bool
    has_skip: bool
    subtracts_b_dec: bool
    """Whether the bias of the decoder is taken off before encoding."""

    normalization: Normalization
    k: int | None
    """Of TOPK, how many features of a position can be active."""

    rescales: bool
    """Whether activations count in units of the length of their decoder rows, and are divided by it to be decoded."""


def settings_from(config: Mapping[str, Any], name: str) -> SaeSettings:
    """Read and check; keys that say nothing of how it computes are not looked at.

    Raises:
        ModelRefusedError: with the key, and what it can be.
    """
    read = _Read(config, name)
    architecture = read.architecture()
    kind = ARCHITECTURES[architecture]
    d_in, d_sae = read.size("d_in"), read.size("d_sae")
    d_out = read.size("d_out") if kind.is_transcoder else d_in
    read.require_computed()
    is_topk = kind.activation is Activation.TOPK
    subtracts_b_dec = read.flag("apply_b_dec_to_input", default=not kind.is_transcoder)
    if subtracts_b_dec and kind.is_transcoder:
        raise read.wrong("apply_b_dec_to_input", "false for a transcoder, whose biases are of another width")
    normalization = read.normalization()
    if kind.is_transcoder and normalization is not Normalization.NONE:
        raise read.wrong("normalize_activations", '"none" for a transcoder')
    rescales = read.flag("rescale_acts_by_decoder_norm", default=False)
    if rescales and not is_topk:
        raise read.wrong("rescale_acts_by_decoder_norm", "false where the architecture is not topk")
    return SaeSettings(
        architecture=architecture,
        activation=kind.activation,
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_out,
        is_transcoder=kind.is_transcoder,
        has_skip=kind.has_skip,
        subtracts_b_dec=subtracts_b_dec,
        normalization=normalization,
        k=read.k(d_sae) if is_topk else None,
        rescales=rescales,
    )


class _Read:
    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self._config, self._name = config, name

    def architecture(self) -> str:
        """Before version 6 of SAELens, topk was an activation function of the standard one."""
        found = self._config.get("architecture", "standard")
        if found == "standard" and self._activation() == "topk":
            return "topk"
        if not isinstance(found, str) or found not in ARCHITECTURES:
            raise self.wrong("architecture", f"one of {', '.join(ARCHITECTURES)}")
        return found

    def size(self, key: str) -> int:
        """A number of elements."""
        found = self._config.get(key)
        if type(found) is not int or not 1 <= found <= _LARGEST:
            raise self.wrong(key, f"a number from 1 to {_LARGEST}")
        return found

    def flag(self, key: str, *, default: bool) -> bool:
        """Yes or no."""
        found = self._config.get(key, default)
        if not isinstance(found, bool):
            raise self.wrong(key, "true or false")
        return found

    def k(self, d_sae: int) -> int:
        """Of topk."""
        within = self._config.get("activation_fn_kwargs")
        found = self._config.get("k", within.get("k") if isinstance(within, dict) else None)
        if type(found) is not int or not 1 <= found <= d_sae:
            raise self.wrong("k", f"a number from 1 to d_sae {d_sae}", found)
        return found

    def normalization(self) -> Normalization:
        """Of what is encoded."""
        found = self._config.get("normalize_activations") or "none"  # once it was true or false
        known = [each.value for each in Normalization]
        if found not in known:
            raise self.wrong("normalize_activations", f"one of {', '.join(known)}; fold other ones into the weights")
        return Normalization(found)

    def require_computed(self) -> None:
        """Refuse what is computed in ways that are not known here."""
        if self._activation() not in ("relu", "topk"):
            raise self.wrong("activation_fn", "relu, or topk", self._activation())
        if self._config.get("finetuning_scaling_factor", False) not in (False, None):
            raise self.wrong("finetuning_scaling_factor", "false: fold the factors into the weights")
        if self._config.get("reshape_activations", "none") not in ("none", "hook_z"):
            raise self.wrong("reshape_activations", "none or hook_z")

    def wrong(self, key: str, wanted: str, found: object = None) -> ModelRefusedError:
        """The error for a value that cannot be."""
        got = self._config.get(key) if found is None else found
        return refused(self._name, f"says {key} = {printable(repr(got))[:60]}; it must be {wanted}", CONFIG)

    def _activation(self) -> object:
        return self._config.get("activation_fn", self._config.get("activation_fn_str")) or "relu"
