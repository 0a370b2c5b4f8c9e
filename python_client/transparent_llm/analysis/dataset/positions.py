"""Which positions of a sentence are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsIndex

from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError
from transparent_llm.quoting import kind_of
from transparent_llm.runtime.indexing import counted

LAST, ALL, MEAN = "last", "all", "mean"
_WORDS = (LAST, ALL, MEAN)


@dataclass(frozen=True)
class Positions:
    """One of the words, or a position; a negative one counts from a sentence's last token."""

    which: str | int

    @classmethod
    def of(cls, given: str | SupportsIndex) -> Positions:
        """As a caller writes it.

        Raises:
            InvalidRequestError: something else.
        """
        if isinstance(given, str) and given in _WORDS:
            return cls(given)
        if isinstance(given, str | bool) or not hasattr(given, "__index__"):
            raise InvalidRequestError(f'positions must be "last", "all", "mean" or an integer, got {kind_of(given)}')
        return cls(given.__index__())

    @property
    def is_mean(self) -> bool:
        """Whether what is read of a sentence becomes one value."""
        return self.which == MEAN

    def within(self, n_tokens: int, sentence: int) -> range:
        """Those of a sentence with so many tokens.

        Raises:
            IndexOutOfRangeError: it has no such position.
        """
        if isinstance(self.which, str):
            return range(n_tokens - 1 if self.which == LAST else 0, n_tokens)
        found = counted(self.which, n_tokens)
        if not 0 <= found < n_tokens:
            raise IndexOutOfRangeError(
                f"pos {self.which} is out of range in sentence {sentence}, which has {n_tokens} tokens: valid indices "
                f"are 0 to {n_tokens - 1}, or -{n_tokens} to -1 from the end",
                metadata={"axis": "pos", "size": str(n_tokens), "got": str(self.which), "sentence": str(sentence)},
            )
        return range(found, found + 1)
