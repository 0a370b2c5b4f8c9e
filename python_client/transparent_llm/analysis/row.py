"""One row of the current run: how long it is, and which of its positions hold a token."""

from __future__ import annotations

from dataclasses import dataclass

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import NotSupportedError
from transparent_llm.runtime.indexing import checked_index, integer


@dataclass(frozen=True)
class Row:
    """A sentence of the batch. Padding, which follows its tokens, is no part of any analysis."""

    index: int
    """From 0 on."""

    n_pos: int
    """Positions of the batch: length of the longest row."""

    n_tokens: int
    """Of this row; an implementation that does not know padding has none."""

    @classmethod
    def of(cls, llm: TransparentLlm, batch_i: int) -> Row:
        """The row that an index names, a negative one from the end.

        Raises:
            NotRunError: before the first run.
            IndexOutOfRangeError: there is no such row.
        """
        n_rows, n_pos = llm.tokens().shape
        index = checked_index("batch_i", batch_i, n_rows)
        try:
            return cls(index, n_pos, int(llm.mask()[index].sum()))
        except NotSupportedError:
            return cls(index, n_pos, n_pos)

    def position(self, pos: int) -> int:
        """`pos` from 0 on; a negative one counts from the row's last token.

        Raises:
            IndexOutOfRangeError: outside of the batch.
        """
        n_tokens = self.n_tokens if integer("pos", pos) < 0 else None
        return checked_index("pos", pos, self.n_pos, n_tokens)

    def is_padding(self, pos: int) -> bool:
        """Whether a position from 0 on is after the row's last token."""
        return pos >= self.n_tokens
