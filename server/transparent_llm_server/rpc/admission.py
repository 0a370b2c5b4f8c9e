"""What is let in: each run and each read is costed before it starts, and refused if it can never fit."""

from __future__ import annotations

from collections.abc import Iterable

from transparent_llm.errors import TooLargeError
from transparent_llm.wire.methods import METHODS
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.streaming.chunks import Outgoing

_BYTES_OF_AN_ID = 6
"""Of a request, at the most: an id below 2^31, in the form that nobody uses who has a choice."""

_BYTES_AROUND_A_SENTENCE = 16
_BYTES_BESIDES = 4096
"""For the name of the model, and fields that a newer client knows."""

_MOST_ANSWER_BYTES = 4 * 2**20
"""Of one message that is no tensor: what every gRPC library receives without being told otherwise."""

_ENTRIES_BESIDES = 64
_TOLD_EXACTLY = 8
"""How many times too many sentences may be for their number to be told: more are not even parsed."""
_MOST_MESSAGES = 2**14
"""Of one answer, unless it takes more at the server's own choice: each is work for both ends, however small it is."""


class Admission:
    """The limits of a server, applied. What a run takes of the store is the store's own limit, see `RunStore`."""

    def __init__(self, config: ServerConfig) -> None:
        self._max_sentences = config.max_sentences_per_run
        self._max_text_bytes = config.max_text_bytes
        self._max_tokens = config.max_tokens_per_run
        self._max_read_bytes, self._max_read_work = config.max_read_bytes, config.max_read_work
        self.max_sweep_positions = config.max_sweep_positions
        """Cells times rows times positions of one sweep."""

        self.max_gradient_bytes = config.max_gradient_bytes
        """Of the graph of one pass."""

        self._most_messages = max(_MOST_MESSAGES, -(-config.max_read_bytes // max(1, config.chunk_bytes)))

    @property
    def most_entries(self) -> int:
        """Sentences and other fields of a request that is parsed, to be refused with their number if they are many."""
        return _TOLD_EXACTLY * self._max_sentences + _ENTRIES_BESIDES

    def require_entries(self, count: int) -> None:
        """Refuse a request, not yet parsed, of so many sentences and other fields that parsing it would take long.

        Raises:
            TooLargeError: TOO_LONG, with what is needed at least and what is allowed.
        """
        if count >= self.most_entries:
            _require("sentences or more", count, self._max_sentences)

    def require_input_bytes(self, nbytes: int) -> None:
        """Refuse a request, not yet parsed, that is longer than one within the other limits can be.

        Raises:
            TooLargeError: TOO_LONG, with what is needed and what is allowed.
        """
        longest = max(self._max_text_bytes, _BYTES_OF_AN_ID * self._max_tokens)
        allowed = longest + _BYTES_AROUND_A_SENTENCE * self._max_sentences + _BYTES_BESIDES
        _require("bytes of sentences or tokens", nbytes, allowed)

    def require_sentences(self, count: int) -> None:
        """Refuse a batch of too many rows, text or tokens.

        Raises:
            TooLargeError: TOO_LONG, with what is needed and what is allowed.
        """
        _require("sentences", count, self._max_sentences)

    def require_text(self, nbytes: int) -> None:
        """Refuse too much text, which no tokenizer has seen yet.

        Raises:
            TooLargeError: TOO_LONG, with what is needed and what is allowed.
        """
        _require("bytes of text", nbytes, self._max_text_bytes)

    def require_tokens(self, count: int) -> None:
        """Refuse too many tokens, those of the padding counted.

        Raises:
            TooLargeError: TOO_LONG, with what is needed and what is allowed.
        """
        _require("tokens", count, self._max_tokens, " (padding included)")

    def require_answer(self, nbytes: int, n_tokens: int) -> None:
        """Refuse an answer with the text of tokens that gRPC's clients would not take by their own default.

        Raises:
            TooLargeError: TOO_LARGE, with what is needed and what is allowed.
        """
        if nbytes > _MOST_ANSWER_BYTES:
            raise TooLargeError(
                f"the text of these {n_tokens} tokens makes an answer of {nbytes} bytes, and one message has at most "
                f"{_MOST_ANSWER_BYTES}; send fewer tokens at once",
                metadata={"needed": str(nbytes), "allowed": str(_MOST_ANSWER_BYTES)},
            )

    def require_sweep(self, positions: int, n_cells: int) -> None:
        """Refuse a sweep that computes too many positions.

        Raises:
            TooLargeError: TOO_LARGE, with what is needed and what is allowed.
        """
        allowed = self.max_sweep_positions
        if positions > allowed:
            raise TooLargeError(
                f"this sweep computes {positions} positions for {n_cells} cells, the server does at most {allowed} for "
                "one: ask for fewer cells or rows at once, or sweep a shorter text",
                metadata={"needed": str(positions), "allowed": str(allowed)},
            )

    def require_gradients(self, nbytes: int, positions: int) -> None:
        """Refuse gradients whose graph and answer take too much memory, or a path of too many positions.

        Raises:
            TooLargeError: TOO_LARGE, with what is needed and what is allowed.
        """
        if nbytes > self.max_gradient_bytes:
            raise TooLargeError(
                f"the graph and the answer of these gradients take up to {nbytes} bytes, the server allows "
                f"{self.max_gradient_bytes}: ask for fewer rows or sites at once, higher layers, or a shorter text",
                metadata={"needed": str(nbytes), "allowed": str(self.max_gradient_bytes)},
            )
        if positions > self.max_sweep_positions:
            raise TooLargeError(
                f"these gradients compute {positions} positions, the server does at most {self.max_sweep_positions} "
                "for one answer: ask for fewer steps or rows, or run a shorter text",
                metadata={"needed": str(positions), "allowed": str(self.max_sweep_positions)},
            )

    def require_read(self, parts: Iterable[Outgoing], chunk_bytes: int) -> int:
        """Refuse an answer of too many bytes, none of which has been computed, in too many messages, or that is too
        much work; the number of its bytes.

        Raises:
            TooLargeError: TOO_LARGE, with what is needed and what is allowed.
        """
        needed = work = most_work = 0
        largest, hardest = None, ""
        for part in parts:  # they may be made one by one: none is kept but one
            needed += part.nbytes
            work += part.value.work
            largest = part if largest is None or part.nbytes > largest.nbytes else largest
            if part.value.work > most_work:
                most_work, hardest = part.value.work, part.name.split(".", maxsplit=1)[0]
        self.require_work(
            work,
            f"fewer layers, positions or rows at once, or run a shorter text ({hardest} of a layer is {most_work})",
        )
        if largest is not None and needed > self._max_read_bytes:
            raise self._too_many_bytes(needed, largest)
        if needed > chunk_bytes * self._most_messages:
            raise TooLargeError(
                f"in messages of {chunk_bytes} bytes this read of {needed} takes more than {self._most_messages}; ask "
                f"for max_chunk_bytes of {needed // self._most_messages + 1} or more",
                metadata={"needed": str(-(-needed // chunk_bytes)), "allowed": str(self._most_messages)},
            )
        return needed

    def require_work(self, needed: int, instead: str) -> None:
        """Refuse an answer that is more multiply-adds than the server does for one.

        Raises:
            TooLargeError: TOO_LARGE, with what is needed and what is allowed.
        """
        if needed > self._max_read_work:
            raise TooLargeError(
                f"this read is {needed} multiply-adds, the server does at most {self._max_read_work} for one answer: "
                f"ask for {instead}",
                metadata={"needed": str(needed), "allowed": str(self._max_read_work)},
            )

    def _too_many_bytes(self, needed: int, largest: Outgoing) -> TooLargeError:
        shape = ", ".join(f"{dim} {size}" for dim, size in zip(largest.dims, largest.value.shape, strict=True))
        return TooLargeError(
            f"this read is {needed} bytes, the server sends at most {self._max_read_bytes} in one answer: ask for "
            f"{_smaller(largest.name)} (the largest tensor is {largest.name} with {shape})",
            metadata={"needed": str(needed), "allowed": str(self._max_read_bytes)},
        )


def _smaller(name: str) -> str:
    """What to ask for instead of a dense value."""
    ways = "slices, a smaller dtype or fewer values at once"
    method = METHODS.get(name)
    return f"the factored encoding, {ways}" if method is not None and method.parts else ways


def _require(what: str, needed: int, allowed: int, counted: str = "") -> None:
    if needed > allowed:
        raise TooLargeError(
            f"{needed} {what} at once, this server allows {allowed}{counted}; send fewer",
            reason="TOO_LONG",
            metadata={"needed": str(needed), "allowed": str(allowed)},
        )
