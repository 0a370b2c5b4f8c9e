"""Colours of values: opaque, with an ink that is readable on them, so that dark pages show them as light ones do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8

_LIGHT, _DEEP = (247.0, 251.0, 255.0), (8.0, 48.0, 107.0)
_NEGATIVE, _MIDDLE, _POSITIVE = (178.0, 24.0, 43.0), (247.0, 247.0, 247.0), (33.0, 102.0, 172.0)
_NOT_FINITE = (138.0, 138.0, 138.0)
_BRIGHT = 0.179
"""Relative luminance (WCAG 2) at which black and white ink have the same contrast, 4.6."""


@dataclass(frozen=True)
class Scale:
    """From which value to which the colours go."""

    low: float
    high: float
    diverges: bool = False
    """Two colours that meet in the middle, for values with a sign."""

    @classmethod
    def of(cls, values: torch.Tensor, low: float | None = None, high: float | None = None) -> Scale:
        """For these values: from 0 to the largest, or symmetric about 0 where some are negative. What is not finite
        does not count."""
        finite = values[torch.isfinite(values)].double()
        least, most = (float(finite.min()), float(finite.max())) if finite.numel() else (0.0, 0.0)
        if low is not None or high is not None:
            return cls(min(least, 0.0) if low is None else low, max(most, 0.0) if high is None else high)
        if least < 0:
            bound = max(-least, most)
            return cls(-bound, bound, diverges=True)
        return cls(0.0, most)

    def colours(self, values: Float[torch.Tensor, "*shape"]) -> UInt8[torch.Tensor, "*shape 3"]:
        """Red, green and blue of each; grey of what is not finite."""
        width = self.high - self.low
        share = ((values.double() - self.low) / (width if width > 0 else 1.0)).clamp(0, 1).nan_to_num(0)[..., None]
        if self.diverges:
            lower = _between(_NEGATIVE, _MIDDLE, 2 * share)
            colours = torch.where(share < 0.5, lower, _between(_MIDDLE, _POSITIVE, 2 * share - 1))
        else:
            colours = _between(_LIGHT, _DEEP, share)
        colours = torch.where(torch.isfinite(values)[..., None], colours, torch.tensor(_NOT_FINITE).double())
        return colours.round().to(torch.uint8)


@dataclass(frozen=True)
class Colour:
    """Of one cell."""

    red: int
    green: int
    blue: int

    @property
    def fill(self) -> str:
        """As CSS and SVG write it."""
        return f"#{self.red:02x}{self.green:02x}{self.blue:02x}"

    @property
    def ink(self) -> str:
        """That is readable on it."""
        red, green, blue = map(_linear, (self.red, self.green, self.blue))
        return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > _BRIGHT else "#ffffff"


def number(value: float) -> str:
    """For people: four digits."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _linear(part: int) -> float:
    """The light of a component of sRGB, from 0 to 1."""
    share = part / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def _between(
    start: tuple[float, ...], end: tuple[float, ...], share: Float[torch.Tensor, "*shape 1"]
) -> Float[torch.Tensor, "*shape 3"]:
    first, last = torch.tensor(start).double(), torch.tensor(end).double()
    return first + (last - first) * share
