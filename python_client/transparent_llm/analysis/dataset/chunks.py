"""Sentences in chunks that fit into memory, and rows of similar length in runs, so that little of a run is padding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from transparent_llm.errors import InvalidRequestError
from transparent_llm.run_input import RunInput

Sentence = str | Sequence[int]
"""Text, or token ids."""

RUNS_PER_CHUNK = 16
"""A chunk holds what that many of the largest runs do."""

_LONGER = 1.5
"""A run's longest row has at most so many times the tokens of its shortest."""


@dataclass(frozen=True)
class Bounds:
    """Of chunks and runs."""

    sentences: int
    """In a chunk."""

    tokens: int
    """In a run, padding included; a single row may have more."""


@dataclass(frozen=True)
class Chunk:
    """Some neighbours of a data set."""

    first: int
    """Where in the data set it begins."""

    sentences: tuple[str, ...] | tuple[tuple[int, ...], ...]

    @property
    def stop(self) -> int:
        """Where the next one begins."""
        return self.first + len(self.sentences)

    def input_of(self, rows: Sequence[int]) -> RunInput:
        """A run of some of its sentences."""
        chosen = [self.sentences[row] for row in rows]
        return RunInput(sentences=tuple(chosen)) if isinstance(chosen[0], str) else RunInput(token_ids=tuple(chosen))  # type: ignore[arg-type]  # all are of one kind

    def runs(self, bounds: Bounds) -> Iterator[list[int]]:
        """Which rows are run together: similar lengths, within the bounds."""
        run: list[int] = []
        for row in sorted(range(len(self.sentences)), key=lambda row: (weight(self.sentences[row]), row)):
            size = weight(self.sentences[row])
            if run and (size > _LONGER * weight(self.sentences[run[0]]) or size * (len(run) + 1) > bounds.tokens):
                yield run
                run = []
            run.append(row)
        yield run

    @cached_property
    def digest(self) -> str:
        """Of its sentences, in hexadecimal digits."""
        digest = hashlib.sha256()
        for sentence in self.sentences:
            data = sentence.encode() if isinstance(sentence, str) else ",".join(map(str, sentence)).encode()
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()


def weight(sentence: Sentence) -> int:
    """How many tokens it has at most, as far as can be told without a tokenizer: of text the bytes of its UTF-8, and
    one for a beginning token."""
    return len(sentence.encode()) + 1 if isinstance(sentence, str) else len(sentence)


def chunks(sentences: Iterable[Sentence], bounds: Bounds) -> Iterator[Chunk]:
    """The data set in its order; the same sentences make the same chunks.

    Raises:
        InvalidRequestError: something else than text or token ids, or both.
    """
    held: list[Sentence] = []
    first = size = 0
    is_text: bool | None = None
    for index, given in enumerate(sentences):
        sentence, is_text = _checked(index, given, is_text)
        more = weight(sentence)
        if held and (len(held) == bounds.sentences or size + more > RUNS_PER_CHUNK * bounds.tokens):
            yield Chunk(first, tuple(held))  # type: ignore[arg-type]  # all are of one kind
            held, first, size = [], index, 0
        held.append(sentence)
        size += more
    if held:
        yield Chunk(first, tuple(held))  # type: ignore[arg-type]  # all are of one kind


def _checked(index: int, given: Sentence, is_text: bool | None) -> tuple[Sentence, bool]:
    """The sentence, of the kind of those before it."""
    if isinstance(given, str) if is_text is None else is_text:
        if not isinstance(given, str):
            raise InvalidRequestError(f"sentence {index} is not text, as those before it, but {type(given).__name__}")
        try:
            (text,) = RunInput.of_sentences([given]).sentences or ("",)
        except InvalidRequestError as error:
            raise InvalidRequestError(str(error).replace("sentence 0", f"sentence {index}", 1)) from None
        return text, True
    if isinstance(given, str):
        raise InvalidRequestError(f"sentence {index} is text, and those before it are token ids: give one kind")
    try:
        (ids,) = RunInput.of_tokens([given]).token_ids or ((),)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"sentence {index}: {error}") from None
    return ids, False
