"""A row of the current run: which one, and which of its positions hold tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsIndex

from transparent_llm.analysis.uncut import require_uncut
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import NotSupportedError
from transparent_llm.runtime.indexing import checked_index


@dataclass(frozen=True)
class Row:
    """Padding follows the tokens, and is no part of any analysis."""

    index: int
    """In the batch, from 0."""

    n_tokens: int
    """Positions from 0 to before this one hold tokens."""

    n_pos: int
    """Positions of the batch; those from `n_tokens` on are padding."""

    @classmethod
    def of(cls, llm: TransparentLlm, batch_i: SupportsIndex) -> Row:
        """Of the current run; all positions of an implementation that knows no padding hold tokens.

        Raises:
            IndexOutOfRangeError: no such row.
            NotRunError: nothing was run yet.
            InvalidRequestError: within a block that cuts axes of what is read.
        """
        require_uncut(llm)
        index = checked_index("batch_i", batch_i, llm.batch_size())
        try:
            mask = llm.mask()
        except NotSupportedError:
            n_pos = llm.tokens().shape[1]
            return cls(index, n_pos, n_pos)
        return cls(index, int(mask[index].sum()), mask.shape[1])

    def position(self, pos: SupportsIndex) -> int:
        """From 0; a negative one counts from the row's last token.

        Raises:
            IndexOutOfRangeError: no such position.
        """
        return checked_index("pos", pos, self.n_pos, self.n_tokens)

    def words(self, llm: TransparentLlm) -> list[str]:
        """The text of each of its tokens."""
        return llm.tokens_to_strings(llm.tokens()[self.index, : self.n_tokens])


def layer_of(llm: TransparentLlm, layer: SupportsIndex) -> int:
    """From 0; a negative one counts from the last layer.

    Raises:
        IndexOutOfRangeError: no such layer.
    """
    return checked_index("layer", layer, llm.model_info().n_layers)
