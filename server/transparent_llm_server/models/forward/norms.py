"""Norms whose divisor is frozen: what each divides by, and what it gives when it divides by something else."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from transparent_llm.runtime.norms import centred, divisor
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.forward.neurons import Materialize
from transparent_llm_server.models.forward.tolerance import allowed_error, largest_error

_EPS_NAMES = ("variance_epsilon", "eps")
_PROBE_SIZES = (0.03, 0.3, 3.0, 300.0)
"""Of vectors that are tried: next to the smallest the number under the root shows."""


@dataclass(frozen=True)
class Norm:
    """y = (x - mean, or x) / scale * gain + bias, by which scale is the deviation, or the size, of x."""

    module: torch.nn.Module
    eps: float
    is_centred: bool
    _materialized: Materialize

    @classmethod
    def of(cls, module: torch.nn.Module, dtype: torch.dtype, materialized: Materialize) -> Norm | None:
        """That of a plain module, if it is seen to compute one of these; else none."""
        eps = next((float(getattr(module, name)) for name in _EPS_NAMES if hasattr(module, name)), None)
        with materialized(module), torch.no_grad():
            weight = getattr(module, "weight", None)
            if eps is None or weight is None or weight.ndim != 1:
                return None
            drawn = torch.randn(len(_PROBE_SIZES), len(weight), generator=torch.Generator().manual_seed(0))
            probe = ((drawn + 0.5) * torch.tensor(_PROBE_SIZES)[:, None]).to(weight.device, dtype)[None]
            wanted = module(probe)
            for is_centred in (True, False):
                norm = cls(module, eps, is_centred, materialized)
                ahead = centred(wide(probe), is_centred) / norm.scale(probe)
                for offset in (0.0, 1.0):
                    got = ahead * (wide(weight.detach()) + offset) + norm._bias()
                    if largest_error(got, wanted) <= allowed_error(wanted, dtype):
                        return norm
        return None

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """What vectors [... d_model] are divided by [... 1], in float32 at least."""
        return divisor(wide(x), self.eps, self.is_centred)

    def rescaled(self, y: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """What it gives where it divides by `after` [... 1] and has divided by `before`: `y` where they are
        equal, with the gradient of that formula."""
        with self._materialized(self.module):
            bias = self._bias()
        made = ((wide(y) - bias) * (before / after).to(y.device) + bias).to(y.dtype)
        found = torch.where((before == after).to(y.device), y, made)
        return found.detach() + (made - made.detach()) if made.requires_grad else found

    def _bias(self) -> torch.Tensor | float:
        bias = getattr(self.module, "bias", None)
        return 0.0 if bias is None else wide(bias.detach())
