"""Tokens as people name them: an id, or a text that is one token."""

from __future__ import annotations

from collections.abc import Sequence

from transparent_llm.analysis.readout import checked_token
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError

TokenName = int | str


def token_of(llm: TransparentLlm, argument: str, name: TokenName) -> int:
    """The id.

    Raises:
        InvalidRequestError: a text that is no token or several, or an id outside the vocabulary.
    """
    return checked_token(llm, argument, llm.to_single_token(name) if isinstance(name, str) else name)


def minus_of(llm: TransparentLlm, name: TokenName | None) -> int | None:
    """The id of what is taken off, if anything is."""
    return None if name is None else token_of(llm, "minus", name)


def tokens_of(llm: TransparentLlm, argument: str, names: Sequence[TokenName]) -> tuple[int, ...]:
    """An id for each.

    Raises:
        InvalidRequestError: as `token_of`; or a text where a list of them is taken.
    """
    if isinstance(names, str):
        raise InvalidRequestError(f"{argument} is a list of tokens, got one text: write [{names[:100]!r}]")
    return tuple(token_of(llm, argument, name) for name in names)
