"""Text that a model goes on with: what is asked for, and the tokens that come, step by step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, SupportsIndex

from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm.interventions import Intervention
from transparent_llm.interventions.operation import Freeze
from transparent_llm.interventions.own import OwnEdits
from transparent_llm.quoting import kind_of, quoted
from transparent_llm.run_input import RunInput, one_text, require_token_ids
from transparent_llm.runtime.indexing import integer
from transparent_llm.runtime.numbers import finite_number
from transparent_llm.scalars import is_one

MOST_STOPS, LONGEST_STOP_BYTES, MOST_TOP_LOGPROBS, MOST_MESSAGES = 16, 256, 20, 1024
"""Of one generation; messages are those of one chat."""

MOST_TOKENS = 2**32 - 1
"""No vocabulary and no context has more: what a request can name. A model says itself how many it has."""

_COLDEST, _HOTTEST = 0.01, 100.0

Finished = Literal["stop", "length", "eos"]


@dataclass(frozen=True)
class Chat:
    """A conversation, which the chat template of the model's tokenizer makes a text of."""

    messages: tuple[tuple[str, str], ...]
    """Role and content of each."""

    @classmethod
    def of(cls, messages: object) -> Chat:
        """From a list of `{"role": ..., "content": ...}`.

        Raises:
            InvalidRequestError: something else, or none.
            TooLargeError: too many.
        """
        found = list(messages) if isinstance(messages, list | tuple) else None
        if not found or not all(isinstance(each, Mapping) and set(each) == {"role", "content"} for each in found):
            raise InvalidRequestError(
                'messages is a list such as [{"role": "user", "content": "..."}], each with these two, got '
                f"{kind_of(messages)}"
            )
        require_few("messages of a chat", len(found), MOST_MESSAGES)
        return cls(tuple((one_text(each["role"]), one_text(each["content"])) for each in found))


Prompts = RunInput | Chat
"""Rows of sentences or token ids, or one chat."""


@dataclass(frozen=True)
class GenerationSettings:
    """How many tokens, how each is chosen, and what ends a row."""

    max_new_tokens: int = 20
    temperature: float = 0.0
    """0: the likeliest token each time."""

    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InvalidRequestError(f"max_new_tokens is {self.max_new_tokens}: it must be 1 or more")
        require_few("new tokens", self.max_new_tokens, MOST_TOKENS)
        if self.temperature != 0 and not _COLDEST <= self.temperature <= _HOTTEST:  # NaN is neither
            raise InvalidRequestError(
                f"temperature is {self.temperature}: it must be 0, for the likeliest token each time, or from "
                f"{_COLDEST} to {_HOTTEST:g}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise InvalidRequestError(f"top_k is {self.top_k}: it must be 1 or more, or None for all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InvalidRequestError(f"top_p is {self.top_p}: it must be over 0 and at most 1, or None for all tokens")
        if not 0 <= self.seed < 2**64:
            raise InvalidRequestError(f"seed is {self.seed}: it must be 0 or more, and below 2**64")
        if self.top_logprobs < 0:
            raise InvalidRequestError(f"top_logprobs is {self.top_logprobs}: it must be 0 or more")
        require_few("top_logprobs", self.top_logprobs, MOST_TOP_LOGPROBS)
        self._require_stops()

    def _require_stops(self) -> None:
        require_few("stop strings", len(self.stop_strings), MOST_STOPS)
        require_few("stop tokens", len(self.stop_token_ids), MOST_STOPS)
        require_token_ids(self.stop_token_ids)
        for text in self.stop_strings:
            if not text:
                raise InvalidRequestError("a stop string is empty: every text has it")
            require_few(f"bytes of the stop string {quoted(text)}", len(text.encode()), LONGEST_STOP_BYTES)

    @classmethod
    def of(
        cls,
        max_new_tokens: SupportsIndex,
        temperature: float,
        top_k: SupportsIndex | None,
        top_p: float | None,
        seed: SupportsIndex,
        stop: str | Iterable[str | SupportsIndex],
        top_logprobs: SupportsIndex,
    ) -> GenerationSettings:
        """From the arguments of `generate`.

        Raises:
            InvalidRequestError: one that makes no sense; the message names it.
            TooLargeError: too many or too long stops, or too many top_logprobs.
        """
        if not isinstance(stop, str) and is_one(stop):
            raise InvalidRequestError(f"stop is a text, or a list of texts and token ids, got {kind_of(stop)}")
        stops = [stop] if isinstance(stop, str) else list(stop)
        return cls(
            integer("max_new_tokens", max_new_tokens),
            finite_number("temperature", temperature),
            None if top_k is None else integer("top_k", top_k),
            None if top_p is None else finite_number("top_p", top_p),
            integer("seed", seed),
            tuple(one_text(each) for each in stops if isinstance(each, str)),
            tuple(integer("stop", each) for each in stops if not isinstance(each, str)),
            integer("top_logprobs", top_logprobs),
        )


class NextToken(NamedTuple):
    """The token of a row in one step."""

    token_id: int
    text: str
    """Of it by itself."""

    logprob: float
    """Natural, as the model has it: before temperature, top_k and top_p."""

    finished: Finished | None
    """Why it is the last of its row: a stop string or token, as many as were asked for, or a token that ends texts.
    None: it is not."""

    top_ids: tuple[int, ...] = ()
    """The likeliest tokens."""

    top_logprobs: tuple[float, ...] = ()
    """Theirs."""


class Step(NamedTuple):
    """What came next."""

    tokens: tuple[NextToken | None, ...]
    """Of each row; None where it is finished."""

    @property
    def text(self) -> str:
        """Of the only row.

        Raises:
            InvalidRequestError: there are several; `tokens` has them.
        """
        if len(self.tokens) != 1 or self.tokens[0] is None:
            raise InvalidRequestError(f"a step of {len(self.tokens)} rows has no one text: its tokens have them")
        return self.tokens[0].text


class Generating:
    """An object whose model can go on with a text."""

    _own_edits: OwnEdits

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        max_new_tokens: int = 20,
        *,
        messages: Sequence[Mapping[str, str]] | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: str | Iterable[str | int] = (),
        edits: Sequence[Intervention] = (),
        top_logprobs: int = 0,
    ) -> Iterator[Step]:
        """Go on with a text, token by token; then everything inside can be read.

        When the loop over the steps has come to its end, the current run is that of the prompt and all new tokens but
        the last of each row, which the model never read: its values are those of `run_tokens` of these. A loop that is
        left ends the work, and the current run stays as it was.

        Args:
            prompt: A sentence, or a list of them, each continued as if it were alone. Tokenized as `run` would.
            max_new_tokens: Of each row; with the prompt they have to be within the model's context.
            messages: Instead of a prompt, a conversation `[{"role": "user", "content": "..."}]`, which the tokenizer's
                own chat template makes a text of, up to where the model is to answer.
            temperature: 0: the likeliest token each time. Else what logits are divided by before one is drawn.
            top_k: Draw from so many of the likeliest tokens.
            top_p: Draw from the likeliest tokens that have this probability together.
            seed: Of what is drawn: equal seeds draw the same for the same number of row.
            stop: Texts and token ids that end a row. The token that does so is its last; texts are looked for in what
                was generated. A token that ends texts of this model ends a row by itself.
            edits: Changes of every step and of the run, after those of `edits` blocks. Positions are "all", or some of
                the prompt from 0; nothing can be frozen. Each step then computes the whole row. `noise` draws for each
                row by its number.
            top_logprobs: How many of the likeliest tokens are told beside each one.

        Raises:
            InvalidRequestError: an argument that makes no sense.
            TooLargeError: more tokens than the context, or the server, has room for.
            NotSupportedError: messages, and a tokenizer without a chat template; or the model cannot be edited.
            BusyError: the server has no room for another generation now.
            UnavailableError: the server was lost after the first step; the message says how far it came.
        """
        settings = GenerationSettings.of(max_new_tokens, temperature, top_k, top_p, seed, stop, top_logprobs)
        return self._generated(_prompts(prompt, messages), settings, self._own_edits.before(edits))

    def generate_tokens(
        self,
        token_ids: list[list[int]],
        max_new_tokens: int = 20,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: str | Iterable[str | int] = (),
        edits: Sequence[Intervention] = (),
        top_logprobs: int = 0,
    ) -> Iterator[Step]:
        """As `generate`, of rows of token ids, as `run_tokens` takes them."""
        settings = GenerationSettings.of(max_new_tokens, temperature, top_k, top_p, seed, stop, top_logprobs)
        return self._generated(RunInput.of_tokens(token_ids), settings, self._own_edits.before(edits))

    @abstractmethod
    def _generated(
        self, prompts: Prompts, settings: GenerationSettings, edits: tuple[Intervention, ...]
    ) -> Iterator[Step]:
        """The steps; behind the last one the current run is that of what was generated."""


def require_movable(edits: Sequence[Intervention]) -> None:
    """Refuse edits whose places would be others in each step.

    Raises:
        InvalidRequestError: one of the last position, or of one that is counted from it; or one that freezes.
    """
    for edit in edits:
        if isinstance(edit.operation, Freeze):
            raise InvalidRequestError(
                f"{edit}: what is generated grows with every step, and no run has as many positions to freeze it to"
            )
        if edit.positions == "last" or (edit.positions != "all" and min(edit.positions) < 0):
            raise InvalidRequestError(
                f"{edit}: the last token is another one in every step of a generation; name positions of the prompt "
                'from 0, or "all"'
            )


def require_few(what: str, count: int, most: int) -> None:
    """Refuse more of something than one generation has.

    Raises:
        TooLargeError: with the numbers.
    """
    if count > most:
        raise TooLargeError(
            f"{count} {what}, at most {most} are possible in a generation",
            metadata={"needed": str(count), "allowed": str(most)},
        )


def _prompts(prompt: object, messages: object) -> Prompts:
    if (prompt is None) == (messages is None):
        raise InvalidRequestError("generate takes either a prompt or messages")
    if messages is not None:
        return Chat.of(messages)
    if isinstance(prompt, str):
        return RunInput.of_sentences([prompt])
    return RunInput.of_sentences(prompt)  # type: ignore[arg-type]  # which says so if it is something else
