"""The text of many tokens, each asked for once."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from transparent_llm.contract import TransparentLlm


def strings_of(llm: TransparentLlm, ids: Iterable[int]) -> dict[int, str]:
    """The text of each id; what is no token, as padding has it, is empty."""
    known = sorted({token for token in ids if token >= 0})
    strings = llm.tokens_to_strings(torch.tensor(known, dtype=torch.int64, device="cpu")) if known else []
    return {-1: "", **dict(zip(known, strings, strict=True))}
