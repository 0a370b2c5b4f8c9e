"""The last step of a model, read from its final norm and its unembedding, and compared with what the model does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from transparent_llm.analysis.readout import Readout
from transparent_llm.errors import NotSupportedError
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.families import logit_scale, soft_cap
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.neurons import unbridged

_TOLERANCE = {torch.float64: 5e-5, torch.float32: 5e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Of the largest logit compared: norms compute in float32, whatever the dtype."""

_EPS_WITHOUT_NAME = 1e-5
"""Of norms that keep theirs to themselves (OLMo 1)."""

_PROBE_SIZES = (0.03, 0.3, 3.0, 300.0)
"""Of the vectors that are compared: next to the smallest the number that a norm adds under its root shows."""

_MOST_TOKENS = 256


class LastStep:
    """Gives readouts of one model; the first one is preceded by a comparison."""

    def __init__(self, model: BridgedModel) -> None:
        self._model = model
        self._is_compared = False

    def readout(self, tokens: Sequence[int]) -> Readout:
        """Of these tokens, which are in the vocabulary.

        Raises:
            NotSupportedError: readouts do not give the model's own logits.
        """
        if not self._is_compared:
            self._compare()
            self._is_compared = True
        return self._read(tokens)

    def _read(self, tokens: Sequence[int]) -> Readout:
        model, (bridged_norm, bridged_unembedding) = self._model, self._model.final_modules
        scale = logit_scale(model.text_config)
        with model.materialized(bridged_norm, bridged_unembedding):
            norm, unembedding = unbridged(bridged_norm), unbridged(bridged_unembedding)
            weights, unembed_bias = self._rows(unembedding, tokens)
            norm_bias = _vector(norm, "bias", weights[0], default=0.0)
            gain = _vector(norm, "weight", weights[0], default=1.0)
        if getattr(bridged_norm, "uses_weight_offset", False):
            gain = 1.0 + gain
        is_centred = not getattr(bridged_norm, "uses_rms_norm", False)
        directions = weights * gain * scale
        if is_centred:
            directions = directions - directions.mean(dim=1, keepdim=True)
        cap = soft_cap(model.text_config)
        biases = (weights @ norm_bias * scale, unembed_bias * scale)
        return Readout(directions, *biases, _eps(norm), is_centred, gain * scale, cap)

    def _rows(self, unembedding: Any, tokens: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the unembedding, and of its bias."""
        weight, shape = getattr(unembedding, "weight", None), (self._model.d_vocab, self._model.d_model)
        if weight is None or tuple(weight.shape) != shape:
            raise self._unsupported(f"its unembedding has no weight of shape {list(shape)}")
        at = torch.tensor(list(tokens), dtype=torch.int64, device=weight.device)
        bias = getattr(unembedding, "bias", None)
        rows = wide(weight.detach()[at])
        return rows, rows.new_zeros(len(at)) if bias is None else wide(bias.detach()[at])

    def _compare(self) -> None:
        """Raises NotSupportedError where readouts do not give what the model's last step gives."""
        model, tokens = self._model, range(min(_MOST_TOKENS, self._model.d_vocab))
        directions = torch.randn(len(_PROBE_SIZES), model.d_model, generator=torch.Generator().manual_seed(0))
        probe = ((directions + 0.5) * torch.tensor(_PROBE_SIZES)[:, None]).to(model.dtype)
        found = self._read(tokens)
        wanted = wide(model.unembed(probe, normalize=True, tokens=tokens)).to(found.directions)
        got = found.capped(found.logits(probe))
        error, largest = float((got - wanted).abs().max()), float(wanted.abs().max())
        if not error <= _TOLERANCE[model.dtype] * largest:
            raise self._unsupported(
                f"its final norm and unembedding, as they can be read, give logits that differ from its own by "
                f"{error:.3g}, where the largest is {largest:.3g}",
                max_abs_error=f"{error:.3g}",
            )

    def _unsupported(self, why: str, **metadata: str) -> NotSupportedError:
        return NotSupportedError(
            f"logits of {self._model.architecture} cannot be attributed to parts of the residual stream: {why}",
            metadata={"method": "readout", "architecture": self._model.architecture, **metadata},
        )


def _vector(norm: Any, name: str, like: torch.Tensor, *, default: float) -> torch.Tensor:
    """A parameter of a norm [d_model]; one that it lacks is `default` everywhere."""
    found = getattr(norm, name, None)
    return torch.full_like(like, default) if found is None else wide(found.detach()).to(like)


def _eps(norm: Any) -> float:
    return float(
        next((getattr(norm, name) for name in ("eps", "variance_epsilon") if hasattr(norm, name)), _EPS_WITHOUT_NAME)
    )
