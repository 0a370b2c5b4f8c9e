"""What a run is made of: sentences, or token ids. A client keeps it to make a lost run again."""

from __future__ import annotations

import hashlib
import operator
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.quoting import kind_of

_TOKEN_ID_LIMIT = 2**31


@dataclass(frozen=True)
class RunInput:
    """Exactly one of the two is set."""

    sentences: tuple[str, ...] | None = None
    token_ids: tuple[tuple[int, ...], ...] | None = None
    add_bos: bool | None = None
    """Of sentences: whether the beginning token is put before. None: as the model wants it."""

    @classmethod
    def of_sentences(cls, sentences: Sequence[str], add_bos: bool | None = None) -> RunInput:
        """Input from a list of sentences.

        Raises:
            InvalidRequestError: a single string, something else than strings, or text that is no valid Unicode.
        """
        if isinstance(sentences, str | bytes) or not isinstance(sentences, Iterable):
            raise InvalidRequestError(
                f"run takes a list of sentences, got {type(sentences).__name__}; for one sentence write run([sentence])"
            )
        if isinstance(sentences, Mapping) or getattr(sentences, "ndim", 1) != 1:  # whose keys or columns would be run
            raise InvalidRequestError(
                f"run takes a list of sentences, got {type(sentences).__name__}; write list(...) of the part that has "
                "them"
            )
        held = tuple(sentences)
        for index, sentence in enumerate(held):
            _require_text(index, sentence)
        return cls(sentences=held, add_bos=checked_bos(add_bos))

    @classmethod
    def of_tokens(cls, token_ids: Sequence[Sequence[int]]) -> RunInput:
        """Input from a list of token ids for each row; rows of a tensor will do.

        Raises:
            InvalidRequestError: an id that cannot be one, such as a negative number.
        """
        try:
            rows = tuple(tuple(operator.index(token) for token in row) for row in token_ids)
        except TypeError as error:
            raise InvalidRequestError(f"run_tokens takes a list of token ids for each row: {error}") from None
        for row in rows:
            require_token_ids(row)
        return cls(token_ids=rows)

    def run_on(self, llm: TransparentLlm) -> None:
        """Make it the current run of a model."""
        if self.add_bos is not None:
            raise NotSupportedError(f"{type(llm).__name__} cannot be told whether to add_bos: leave it out")
        if self.token_ids is not None:
            llm.run_tokens([list(row) for row in self.token_ids])
        else:
            llm.run(list(self.sentences or ()))

    def key(self, model: str) -> str:
        """The routing key, known before the first call: a hash of model and input, the same in every language.

        docs/PROTOCOL.md has its definition.
        """
        digest = hashlib.sha256()
        for part in (model.encode(), *self._parts()):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()[:32]

    def _parts(self) -> Iterator[bytes]:
        if self.token_ids is None:
            yield b"sentences"
            yield from (sentence.encode() for sentence in self.sentences or ())
        else:
            yield b"tokens"
            yield from (struct.pack(f">{len(row)}i", *row) for row in self.token_ids)


def one_text(text: object) -> str:
    """A text, checked.

    Raises:
        InvalidRequestError: something else, or text that is no valid Unicode.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(f"text must be one string, got {kind_of(text)}")
    _require_unicode("text", text, {})
    return text


def checked_bos(add_bos: object) -> bool | None:
    """Whether the beginning token is put before, as it was asked for.

    Raises:
        InvalidRequestError: neither yes nor no nor None.
    """
    if add_bos is None or isinstance(add_bos, bool):
        return add_bos
    raise InvalidRequestError(f"add_bos must be True, False or None, got {kind_of(add_bos)}")


def ids_of(tokens: Iterable[SupportsIndex]) -> list[int]:
    """Plain numbers of a tensor of token ids [pos], or of a list of them.

    Raises:
        InvalidRequestError: something else, or what no vocabulary has.
    """
    shape = getattr(tokens, "shape", None)
    if isinstance(tokens, str) or not isinstance(tokens, Iterable) or (shape is not None and len(shape) != 1):
        raise InvalidRequestError(
            f"tokens must be one row of token ids [pos], such as llm.tokens()[0], got {kind_of(tokens)}"
        )
    try:
        ids = [operator.index(token) for token in tokens]
    except TypeError:
        wrong = next(token for token in tokens if not hasattr(token, "__index__") or shape is not None)
        raise InvalidRequestError(f"tokens must be integers, got {kind_of(wrong)}") from None
    require_token_ids(ids)
    return ids


def require_token_ids(token_ids: Sequence[int]) -> None:
    """Refuse what no vocabulary has, so that it need not travel.

    Raises:
        InvalidRequestError: a negative or huge number.
    """
    wrong = next((token for token in token_ids if not 0 <= token < _TOKEN_ID_LIMIT), None)
    if wrong is not None:
        raise InvalidRequestError(
            f"token {wrong} is not in the vocabulary: ids begin at 0 and no vocabulary is that large",
            reason="UNKNOWN_TOKEN",
            metadata={"token": str(wrong)},
        )


def _require_text(index: int, sentence: object) -> None:
    metadata = {"sentence": str(index)}
    if not isinstance(sentence, str):
        raise InvalidRequestError(f"sentence {index} is not text but {type(sentence).__name__}", metadata=metadata)
    _require_unicode(f"sentence {index}", sentence, metadata)


def _require_unicode(what: str, text: str, metadata: dict[str, str]) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{what} is not valid Unicode at character {error.start}: {error.reason}", metadata=metadata
        ) from None
