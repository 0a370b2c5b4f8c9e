"""Which rows may share a forward pass: those whose lengths a model treats alike.

Some models choose how they compute by the longest row of a batch. Beside a longer row a short one would then get other
values than alone, and they would not be its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_STATIC_ROPE = ("default", "linear", "llama3", "proportional", "yarn")
"""Frequencies that are made once. `dynamic` ones change with a row longer than the context, which is never run."""

_PADDED = "rows of one batch share forward passes with padding on the right"


@dataclass(frozen=True)
class Regimes:
    """Which rows of a batch may share a forward pass of one model."""

    borders: tuple[int, ...] = ()
    """A row of at most so many tokens computes in another way than a longer one."""

    alone: str = ""
    """Why every row has a forward pass of its own. Empty: it need not."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> Regimes:
        """Of the model that a configuration describes."""
        borders: set[int] = set()
        for parameters in _rope_parameters(config):
            kind = str(parameters.get("rope_type", "default"))
            if kind == "longrope":
                borders.add(int(parameters["original_max_position_embeddings"]))
            elif kind not in _STATIC_ROPE and "dynamic" not in kind:
                return cls(alone=f"nothing is known of its rotary embedding ({kind})")
        return cls(tuple(sorted(borders)))

    def each_alone(self, why: str) -> Regimes:
        """The same model, of which it is known by now that rows must not share a pass."""
        return replace(self, alone=why)

    def may_share(self, lengths: Sequence[int]) -> bool:
        """Whether rows of these lengths have one forward pass."""
        return len(lengths) == 1 or (not self.alone and len({self._of(length) for length in lengths}) == 1)

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """The rows of a batch, by their lengths, that share a pass: indices into it, in order."""
        if self.alone:
            return [[row] for row in range(len(lengths))]
        found: dict[int, list[int]] = {}
        for row, length in enumerate(lengths):
            found.setdefault(self._of(length), []).append(row)
        return list(found.values())

    def __str__(self) -> str:
        if self.alone:
            return f"every row has a forward pass of its own: {self.alone}"
        if self.borders:
            border = ", ".join(map(str, self.borders))
            return (
                f"{_PADDED}, those of at most {border} tokens apart from longer ones, which the model treats "
                "differently"
            )
        return _PADDED

    def _of(self, length: int) -> int:
        return sum(length > border for border in self.borders)


def _rope_parameters(config: PretrainedConfig) -> Iterator[dict[str, str | int]]:
    """One set, or one for each type of layer."""
    held = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in held or not all(isinstance(value, dict) for value in held.values()):
        yield held
    else:
        yield from held.values()
