"""Sentences to padded token ids and back."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from transparent_llm.errors import InvalidRequestError, TooLargeError


class Tokenization:
    """A tokenizer with the conventions of this project: padding on the right, one BOS where the model wants it."""

    def __init__(self, tokenizer: Any, *, wants_bos: bool, n_ctx: int, d_vocab: int) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # fast tokenizers refuse to be used from two threads at once
        self._n_ctx = n_ctx
        self._d_vocab = d_vocab
        bos = tokenizer.bos_token_id
        adds_bos_itself = bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]
        self._bos = [bos] if wants_bos and bos is not None and not adds_bos_itself else []
        self.prepends_bos = bool(self._bos) or adds_bos_itself
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])[-1:]
        self._anchor_text = self._decode(self._anchor)
        self.pad_token_id = int(pad) if pad is not None and pad < d_vocab else 0

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Token ids of each sentence, checked as `check` does."""
        with self._lock:
            rows = [self._bos + list(self._tokenizer(sentence, verbose=False)["input_ids"]) for sentence in sentences]
        self.check(rows)
        return rows

    def check(self, rows: Sequence[Sequence[int]]) -> None:
        """Refuse what the model cannot run.

        Raises:
            InvalidRequestError: no row, a row without a token, or an id outside the vocabulary.
            TooLargeError: a row longer than the model's context.
        """
        if not rows:
            raise InvalidRequestError("nothing to run: give at least one sentence", reason="EMPTY_INPUT")
        for index, row in enumerate(rows):
            self._check_row(index, row)

    def _check_row(self, index: int, row: Sequence[int]) -> None:
        if not row:
            raise InvalidRequestError(
                f"sentence {index} has no token; leave it out or give it text",
                reason="EMPTY_INPUT",
                metadata={"sentence": str(index)},
            )
        if len(row) > self._n_ctx:
            raise TooLargeError(
                f"sentence {index} has {len(row)} tokens, the model's context is {self._n_ctx}; "
                "shorten it or split it, nothing is cut silently",
                reason="TOO_LONG",
                metadata={"sentence": str(index), "needed": str(len(row)), "allowed": str(self._n_ctx)},
            )
        self._check_ids(row)

    def _check_ids(self, ids: Sequence[int]) -> None:
        wrong = next((token for token in ids if not 0 <= token < self._d_vocab), None)
        if wrong is not None:
            raise InvalidRequestError(
                f"token {wrong} is not in the vocabulary: ids are 0 to {self._d_vocab - 1}",
                reason="UNKNOWN_TOKEN",
                metadata={"token": str(wrong), "size": str(self._d_vocab)},
            )

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids [batch pos] (int64) and the mask of real ones [batch pos] (bool), padded on the right."""
        tokens = torch.full((len(rows), max(map(len, rows))), self.pad_token_id, dtype=torch.int64)
        mask = torch.zeros_like(tokens, dtype=torch.bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = True
        return tokens, mask

    def strings(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself.

        Raises:
            InvalidRequestError: an id outside the model's vocabulary.
        """
        self._check_ids(ids)
        with self._lock:
            return [self._string(token) for token in ids]

    def _string(self, token: int) -> str:
        """Decoded behind another token: SentencePiece's decoders drop the space in front of the first one."""
        if self._tokenizer.convert_ids_to_tokens(token) is None:
            return f"<unused:{token}>"
        text = self._decode([*self._anchor, token])
        return text.removeprefix(self._anchor_text) if text.startswith(self._anchor_text) else self._decode([token])

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))
