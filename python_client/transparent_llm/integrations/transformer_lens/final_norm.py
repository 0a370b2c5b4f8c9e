"""The norm before the unembedding: what it divides by. Its weights stay in the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.runtime.norms import divisor
from transparent_llm.runtime.numerics import wide

_LARGE = 1000.0
"""Of a vector whose mean square makes epsilon negligible."""

_TOLERANCE = 0.05
"""More than bfloat16 is off by; an epsilon that is off by a fifth is told."""


@dataclass(frozen=True)
class FinalNorm:
    """A norm that divides by the root of the mean square."""

    eps: float
    """Added to the mean square."""

    centers: bool
    """Whether the mean is taken off before: LayerNorm."""

    @classmethod
    def of(cls, adapter: Any, llm: TransparentLlm) -> FinalNorm | None:
        """As TransformerLens reads it out of the configuration. None: there is no such norm, or the served model has
        another one, as its `unembed` shows."""
        cfg = adapter.cfg
        if (
            "ln_final" not in adapter.component_mapping
            or cfg.normalization_type not in ("LN", "RMS")
            or not cfg.eps > 0
        ):
            return None
        norm = cls(cfg.eps, cfg.normalization_type == "LN" and not getattr(cfg, "final_rms", False))
        try:
            return norm if norm._is_of(llm, getattr(cfg, "output_logits_soft_cap", None) or 0.0) else None
        except (InvalidRequestError, NotSupportedError):  # an implementation that cannot unembed these
            return None

    def scale(self, residual: torch.Tensor) -> torch.Tensor:
        """What it divides a residual stream [..., d_model] by [..., 1], in float32 or wider."""
        return divisor(wide(residual), self.eps, self.centers)

    def _is_of(self, llm: TransparentLlm, soft_cap: float) -> bool:
        """A vector whose mean square is eps must come out as half of one whose is large, but for a root; and equal
        elements as nothing, exactly if the mean is taken off."""
        direction = torch.ones(llm.model_info().d_model)
        direction[::2] = -1
        direction -= direction.mean()
        direction /= direction.pow(2).mean().sqrt()
        asked = [0 * direction, self.eps**0.5 * direction, _LARGE * direction, torch.full_like(direction, _LARGE)]
        scores = llm.unembed(torch.stack(asked), normalize=True).double()
        if soft_cap > 0:
            scores = soft_cap * torch.atanh((scores / soft_cap).clamp(-1 + 1e-9, 1 - 1e-9))
        small, large, even = scores[1:] - scores[0]
        ratio = (small @ large / (large @ large)).item()
        centers = bool(even.norm() <= _TOLERANCE * large.norm())
        return abs(ratio - 0.5**0.5) <= _TOLERANCE * 0.5**0.5 and centers == self.centers
