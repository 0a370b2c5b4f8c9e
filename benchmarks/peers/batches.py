"""Token ids to run: never the same twice, so that no server answers from an earlier run."""

from __future__ import annotations

import random


class FreshBatches:
    """Batches of random token ids."""

    def __init__(self, n_rows: int, n_tokens: int, d_vocab: int) -> None:
        self._shape = (n_rows, n_tokens)
        self._d_vocab = d_vocab
        self._random = random.Random(0)

    def next(self) -> list[list[int]]:
        """Another one."""
        n_rows, n_tokens = self._shape
        return [[self._random.randrange(1, self._d_vocab) for _ in range(n_tokens)] for _ in range(n_rows)]
