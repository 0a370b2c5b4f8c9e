"""Vectors that a local object keeps under names, as a server does for an owner."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from transparent_llm.interventions import KeptVector, Vector
from transparent_llm.interventions.kept import checked_name, kept


class Keeping:
    """Copies of an object share what it keeps."""

    _kept: dict[str, KeptVector]

    def keep_vector(self, name: str, vector: Vector | torch.Tensor | Iterable[float]) -> KeptVector:
        """Keep a vector for edits; one that had the name is dropped.

        Args:
            name: Up to 128 printable characters.
            vector: Floating numbers, [d] or [n d] with a row for each position that is selected.

        Raises:
            InvalidRequestError: a name that none can be, or numbers that are no vector.
            TooLargeError: too many numbers.
        """
        self._kept[name] = kept(name, vector)
        return self._kept[name]

    def kept_vectors(self) -> dict[str, KeptVector]:
        """By name."""
        return dict(sorted(self._kept.items()))

    def drop_vector(self, name: str) -> bool:
        """Forget a vector; whether there was one."""
        return self._kept.pop(checked_name(name), None) is not None
