"""What the clients of the soak run and read: the same everywhere, so that everybody knows the values."""

from __future__ import annotations

import random
from typing import Any

FAMILIES = ("gpt2", "llama_gqa")
CASES = 90
READS: list[tuple[Any, ...]] = [
    ("logits",),
    ("residual_out", 1),
    ("attention_matrix", 0, 1, 0),
    ("decomposed_attn", 0, 1),
    ("decomposed_ffn_out", 0, 1, 2),
]


def rows(case: int) -> list[list[int]]:
    """Tokens of a batch."""
    chance = random.Random(case)
    return [[chance.randrange(1, 50) for _ in range(chance.randrange(3, 24))] for _ in range(chance.randrange(1, 4))]


def key(family: str, case: int, read: tuple[Any, ...]) -> str:
    """Names a value."""
    return "/".join([family, str(case), *map(str, read)])
