"""Sentences to padded token ids and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from transparent_llm.errors import InvalidRequestError, NotSupportedError, TooLargeError
from transparent_llm.quoting import listed, quoted
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled
from transparent_llm_server.models.forward.fair_lock import FairLock

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTES_OF_A_TOKEN = 256
"""Of text, taken for each token of a context at the most: twice the longest token of published vocabularies."""

_BYTES_OF_ANY_SENTENCE = 64 * 2**10
"""Taken however short the context is, as a tokenizer may drop much of a text, spaces above all."""


class Tokenization:
    """A tokenizer with the conventions of this project: padding on the right, one BOS where the model wants it.

    Work on many sentences or ids goes on only while somebody waits for it, see `cancellation`. One sentence
    is not interrupted.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, wants_bos: bool, n_ctx: int, d_vocab: int) -> None:
        self._tokenizer = tokenizer
        self.is_concurrent = bool(getattr(tokenizer, "is_fast", False))
        """Whether several threads use it at once: those of the tokenizers library change nothing of themselves when
        each call asks for the same. Of others nothing is known, so threads take turns, sentence by sentence."""

        self._turn: AbstractContextManager[None] = nullcontext() if self.is_concurrent else FairLock()
        self._strings: dict[int, str] = {}  # no more than the vocabulary has
        self._n_ctx = n_ctx
        self._d_vocab = d_vocab
        self._most_bytes = max(_BYTES_OF_ANY_SENTENCE, n_ctx * _BYTES_OF_A_TOKEN)
        bos = tokenizer.bos_token_id
        self._bos = [] if bos is None else [bos]
        self._adds_bos_itself = bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]
        self.prepends_bos = self._adds_bos_itself or (wants_bos and bool(self._bos))
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])[-1:]
        self._anchor_text = self._decode(self._anchor)
        self.pad_token_id = int(pad) if pad is not None and pad < d_vocab else 0

    def encode(self, sentences: Sequence[str], add_bos: bool | None = None) -> list[list[int]]:
        """Token ids of each sentence, each checked as `check` does before the next one is looked at.

        Args:
            sentences: One that starts with the beginning token as it is, such as a rendered chat template, gets no
                second one.
            add_bos: Whether to put it before the others; None: as the model wants it.

        Raises:
            InvalidRequestError: as `check`; or there is no beginning token to put before.
            AbandonedError: nobody waits for them any more.
        """
        _require_some(sentences)
        if add_bos and not self._bos:
            raise InvalidRequestError("add_bos is True, but this model's tokenizer has no beginning token")
        bos = self._bos if (self.prepends_bos if add_bos is None else add_bos) else []
        return [self._row(index, sentence, bos) for index, sentence in enumerate(sentences)]

    def _row(self, index: int, sentence: str, bos: list[int]) -> list[int]:
        raise_if_cancelled()
        self._check_text(index, sentence)
        with self._turn:
            row = list(self._tokenizer(sentence, verbose=False)["input_ids"])
        own = row[1:] if self._adds_bos_itself and row[:1] == self._bos else row
        row = own if own[:1] == self._bos else bos + own
        self._check_row(index, row)
        return row

    def _check_text(self, index: int, sentence: str) -> None:
        """Refuse what has far more text than the context has room for, before its tokens take memory."""
        if len(sentence) * 4 <= self._most_bytes or (needed := len(sentence.encode())) <= self._most_bytes:
            return
        raise TooLargeError(
            f"sentence {index} has {needed} bytes of text, a context of {self._n_ctx} tokens takes {self._most_bytes}; "
            "shorten it or split it, nothing is truncated silently",
            reason="TOO_LONG",
            metadata={"sentence": str(index), "needed": str(needed), "allowed": str(self._most_bytes)},
        )

    def check(self, rows: Sequence[Sequence[int]]) -> None:
        """Refuse what the model cannot run.

        Raises:
            InvalidRequestError: no row, a row without a token, or an id outside the vocabulary.
            TooLargeError: a row longer than the model's context.
        """
        _require_some(rows)
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
                "shorten it or split it, nothing is truncated silently",
                reason="TOO_LONG",
                metadata={"sentence": str(index), "needed": str(len(row)), "allowed": str(self._n_ctx)},
            )
        self.check_ids(row)

    def check_ids(self, ids: Sequence[int]) -> None:
        """Refuse ids outside the vocabulary.

        Raises:
            InvalidRequestError: UNKNOWN_TOKEN, with the first of them.
        """
        if ids and not (min(ids) >= 0 and max(ids) < self._d_vocab):
            wrong = next(token for token in ids if not 0 <= token < self._d_vocab)
            raise InvalidRequestError(
                f"token {wrong} is not in the vocabulary: ids are 0 to {self._d_vocab - 1}",
                reason="UNKNOWN_TOKEN",
                metadata={"token": str(wrong), "size": str(self._d_vocab)},
            )

    def require_context(self, lengths: Iterable[int], more: int) -> None:
        """Refuse rows of so many tokens that are to grow by some more than the model's context has room for.

        Raises:
            TooLargeError: TOO_LONG, with what is needed and what is allowed.
        """
        for index, length in enumerate(lengths):
            if length + more > self._n_ctx:
                raise TooLargeError(
                    f"prompt {index} has {length} tokens, with {more} new ones that is {length + more}; the model's "
                    f"context is {self._n_ctx}: shorten it{_or_fewer(self._n_ctx - length)}",
                    reason="TOO_LONG",
                    metadata={"sentence": str(index), "needed": str(length + more), "allowed": str(self._n_ctx)},
                )

    def chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation of roles and contents, as the tokenizer's own template renders it, up to where
        the model is to answer. transformers runs templates in a sandbox.

        Raises:
            NotSupportedError: the tokenizer has no template.
            InvalidRequestError: the template refuses the conversation, or as `check`.
            TooLargeError: as `encode`.
        """
        if not self._tokenizer.chat_template:
            raise NotSupportedError(
                "this model's tokenizer has no chat template, so there is no one way to write messages: give a prompt"
            )
        given = [{"role": role, "content": content} for role, content in messages]
        self._check_text(0, "".join(content for _, content in messages))
        with self._turn:
            text = _rendered(self._tokenizer, given)
            self._check_text(0, text)
            row = list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        self._check_row(0, row)
        return row

    def text(self, ids: Sequence[int]) -> str:
        """The text of token ids in a row, behind others."""
        with self._turn:
            return self._decode_behind(list(ids))

    def warnings(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[str, ...]:
        """Words about ids of a run [batch pos] that the tokenizer does not define: rows that fill up a vocabulary."""
        wrong = sorted(self._undefined.intersection(tokens[mask].tolist()))
        if not wrong:
            return ()
        return (
            f"the tokenizer defines no token {listed(wrong)}: such ids fill up the vocabulary, and the model was not "
            "trained on them",
        )

    @cached_property
    def _undefined(self) -> frozenset[int]:
        return frozenset(range(self._d_vocab)).difference(self._tokenizer.get_vocab().values())

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
            AbandonedError: nobody waits for them any more.
        """
        self.check_ids(ids)
        for token in set(ids).difference(self._strings):
            raise_if_cancelled()
            with self._turn:
                self._strings[token] = self._string(token)
        return [self._strings[token] for token in ids]

    def _string(self, token: int) -> str:
        if self._tokenizer.convert_ids_to_tokens(token) is None:
            return f"<unused:{token}>"
        return self._decode_behind([token])

    def _decode_behind(self, ids: list[int]) -> str:
        """Behind another token: SentencePiece's decoders drop the space in front of the first one."""
        text = self._decode([*self._anchor, *ids])
        return text.removeprefix(self._anchor_text) if text.startswith(self._anchor_text) else self._decode(ids)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"the chat template of this model's tokenizer refuses these messages: {quoted(str(error))}"
        ) from None


def _or_fewer(n_free: int) -> str:
    return f", or ask for at most {n_free} new tokens" if n_free > 0 else ""


def _require_some(rows: Sequence[object]) -> None:
    if not rows:
        raise InvalidRequestError("nothing to run: give at least one sentence", reason="EMPTY_INPUT")
