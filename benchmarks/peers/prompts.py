"""Prompts of a length in tokens, made of the demo's words: never the same twice, so that each is computed."""

from __future__ import annotations

import itertools
import random

from transparent_llm.demo import SENTENCES

SHORTEST, LONGEST = 8, 64
"""Tokens; of the byte tokenizer in `shapes`, bytes."""


class Prompts:
    """Of evenly spread lengths, the same ones in each run of a benchmark."""

    def __init__(self) -> None:
        self._random, self._numbers = random.Random(0), itertools.count(1000)
        self._words = " ".join(SENTENCES).split()

    def next(self, count: int) -> list[str]:
        """So many more."""
        return [self._one() for _ in range(count)]

    def _one(self) -> str:
        words = self._random.choices(self._words, k=LONGEST)
        return f"{next(self._numbers)} {' '.join(words)}"[: self._random.randint(SHORTEST, LONGEST)]
