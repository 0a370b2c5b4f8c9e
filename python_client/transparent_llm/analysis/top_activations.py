"""The texts of a data set in which neurons, heads or directions are most active.

The usual first look at what a neuron responds to, as in Bills et al., Language models can explain neurons in language
models (2023), and Neuroscope (Nanda 2022): the places of largest activation, with the text around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.counts import checked_count
from transparent_llm.analysis.dataset.chunks import RUNS_PER_CHUNK, Bounds, Sentence, chunks
from transparent_llm.analysis.dataset.measured import Measured
from transparent_llm.analysis.dataset.positions import ALL, Positions
from transparent_llm.analysis.dataset.rows import ChunkReader, Wanted
from transparent_llm.analysis.dataset.top_places import TopPlaces
from transparent_llm.analysis.display.markup import figure
from transparent_llm.analysis.display.scale import Scale
from transparent_llm.analysis.display.tokens import coloured_tokens_html
from transparent_llm.analysis.progress import Bar, Report
from transparent_llm.analysis.token_strings import strings_of
from transparent_llm.analysis.top_tokens import top_tokens_of
from transparent_llm.analysis.uncut import require_uncut
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.extras import missing
from transparent_llm.quoting import kind_of
from transparent_llm.runtime.indexing import integer
from transparent_llm.table import Table, Tabular

if TYPE_CHECKING:
    import pandas

MOST_PLACES, MOST_NEIGHBOURS = 1000, 256
MOST_ELEMENTS = 2**26
"""Values of places and their neighbours that are kept, of all items together: 800 MB with their tokens."""

MOST_CARDS = 20
"""That a notebook shows."""

_MOST_BYTES = 2**30
_PROMOTED = 6


def top_activations(
    llm: TransparentLlm,
    texts: Iterable[Sentence],
    site: tuple[str, int],
    items: Iterable[int] | None = None,
    *,
    directions: Float[torch.Tensor, "... d_model"] | None = None,
    k: int = 10,
    context: int = 8,
    once_per_text: bool = True,
    max_sentences: int = 256,
    max_tokens: int = 4096,
    progress: bool | Report | None = None,
) -> TopActivations:
    """Where in a data set each neuron of a layer, each head, or each of some directions is most active.

    Texts are run in chunks, similar lengths together, and of each item only the best places so far are kept, so that
    memory is bounded however many texts there are. The current run of `llm` stays what it is. For what was found before
    an interruption, use `top_activations_by_part`.

    Args:
        llm: Any model.
        texts: Text, or token ids for each. An iterator is gone through once.
        site: ("neurons", LAYER): activations right after the activation function. ("heads", LAYER): the length of what
            a head added to the residual stream. Or, with `directions`, vectors at a place, such as ("residual_out", 5).
        items: Numbers of neurons or heads. None: all.
        directions: A vector [d_model] or several [n d_model]; what is measured is the product with each at length 1.
        k: How many places of each item.
        context: How many tokens before and after each place are kept with their values.
        once_per_text: Of each text only the place where an item is largest. False: all places.
        max_sentences: In a chunk.
        max_tokens: In a chunk, of which text counts with its bytes of UTF-8; of heads divided by their number.
        progress: A function that is given the number of texts that are done, and of all (or None); a bar (True), none
            (False), or a bar if someone watches (None).

    Returns:
        Of equal values the one that comes first in the data set.

    Raises:
        InvalidRequestError: an argument that cannot be, or no text.
        IndexOutOfRangeError: no such layer, head or neuron.
        NotSupportedError: the layer has no such thing.
    """
    found = top_activations_by_part(
        llm,
        texts,
        site,
        items,
        directions=directions,
        k=k,
        context=context,
        once_per_text=once_per_text,
        max_sentences=max_sentences,
        max_tokens=max_tokens,
        progress=progress,
    )
    last = next(found)
    for last in found:  # noqa: B007 - the last one is the answer
        pass
    return last


def top_activations_by_part(
    llm: TransparentLlm,
    texts: Iterable[Sentence],
    site: tuple[str, int],
    items: Iterable[int] | None = None,
    *,
    directions: Float[torch.Tensor, "... d_model"] | None = None,
    k: int = 10,
    context: int = 8,
    once_per_text: bool = True,
    max_sentences: int = 256,
    max_tokens: int = 4096,
    progress: bool | Report | None = None,
) -> Iterator[TopActivations]:
    """As `top_activations`, but given again after each chunk: what was found in all texts so far. A loop that is left
    ends the work, and the last result stays."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InvalidRequestError(f"top_activations takes a list of texts, got {kind_of(texts)}")
    require_uncut(llm)
    checked_count("k", k, MOST_PLACES, "places that are kept of an item")
    checked_count("context", context, MOST_NEIGHBOURS, "neighbours on each side", least=0)
    for name, limit in (("max_sentences", max_sentences), ("max_tokens", max_tokens)):
        if integer(name, limit) < 1:
            raise InvalidRequestError(f"{name} must be at least 1, got {limit}", metadata={"argument": name})
    measured = Measured.of(llm, site, items, directions)
    return _found(llm, texts, measured, _Kept(k, context, once_per_text), max_sentences, max_tokens, progress)


@dataclass(frozen=True)
class _Kept:
    k: int
    context: int
    once_per_text: bool

    def none_yet(self, n_items: int) -> TopPlaces:
        """Raises InvalidRequestError where so many items are too many."""
        needed = n_items * self.k * (2 * self.context + 1)
        if needed > MOST_ELEMENTS:
            raise InvalidRequestError(
                f"{self.k} places of each of {n_items} items with {self.context} neighbours on each side are "
                f"{needed:,} values, at most {MOST_ELEMENTS:,} are kept: ask for fewer items, a smaller k or context"
            )
        return TopPlaces(n_items, self.k, self.context, once_per_sentence=self.once_per_text)


def _found(
    llm: TransparentLlm,
    texts: Iterable[Sentence],
    measured: Measured,
    wanted: _Kept,
    max_sentences: int,
    max_tokens: int,
    progress: bool | Report | None,
) -> Iterator[TopActivations]:
    bounds = Bounds(max_sentences, max_tokens)
    reader = ChunkReader(llm.copy(), Wanted(measured.sites, Positions(ALL), None, bounds, _MOST_BYTES))
    of_chunks = Bounds(max_sentences, max(1, max_tokens // (RUNS_PER_CHUNK * len(measured.sites))))
    total = len(texts) if isinstance(texts, Sized) else None
    kept, n_tokens = None, 0
    with Bar("top activations", "texts", total, progress) as bar:
        for chunk in chunks(texts, of_chunks):
            rows = reader.read(chunk)
            numbers, values = measured.values(rows.values)
            if kept is None:
                kept = wanted.none_yet(values.shape[1])
            kept.add(values, rows)
            n_tokens += len(values)
            bar.add(len(chunk.sentences))
            yield TopActivations(
                measured,
                numbers,
                kept.values.clone(),
                kept.sentences.clone(),
                kept.positions.clone(),
                kept.tokens.clone(),
                kept.around.clone(),
                chunk.stop,
                n_tokens,
                llm,
            )
    if kept is None:
        raise InvalidRequestError("there is no text")


@dataclass(frozen=True)
class Example:
    """One place of a data set, with the text around it."""

    value: float
    text: int
    """Which of the texts, from 0."""

    pos: int
    """Which token of it."""

    tokens: tuple[str, ...]
    """It and its neighbours."""

    values: tuple[float, ...]
    """The item's value at each of these."""

    peak: int
    """Which of them it is."""


@dataclass(frozen=True, repr=False, eq=False)
class TopActivations(Tabular):
    """The places of each item in falling order. `print` tells the best of each, a notebook shows cards."""

    measured: Measured
    items: tuple[int, ...]
    """Numbers of neurons or heads, or of directions in their order."""

    values: Float[torch.Tensor, "item rank"]
    """-inf where the data set has no more places."""

    texts: Int[torch.Tensor, "item rank"]
    """-1 where there is no place, as in `positions`."""

    positions: Int[torch.Tensor, "item rank"]
    context_tokens: Int[torch.Tensor, "item rank neighbour"]
    """Token ids, the place's own in the middle; -1 beyond an end of the text."""

    context_values: Float[torch.Tensor, "item rank neighbour"]
    """NaN beyond an end of the text."""

    n_texts: int
    """That were looked at."""

    n_tokens: int
    """In them."""

    llm: TransparentLlm

    def __repr__(self) -> str:
        return f"<TopActivations: {self.title}>"

    @property
    def title(self) -> str:
        """What it is, and of how much."""
        n_items, k = self.values.shape
        return f"top {k} of {n_items} {self.measured.title}, {self.n_texts} texts, {self.n_tokens} tokens"

    def examples(self, item: int) -> list[Example]:
        """Those of a neuron, head or direction by its number.

        Raises:
            InvalidRequestError: it was not looked at.
        """
        if item not in self.items:
            raise InvalidRequestError(f"{self.measured.kind} {item} was not asked for, but {len(self.items)} others")
        at = self.items.index(item)
        strings = strings_of(self.llm, self.context_tokens[at].flatten().tolist())
        middle = self.context_tokens.shape[2] // 2
        found = []
        for rank in (self.positions[at] >= 0).nonzero().flatten().tolist():
            there = (self.context_tokens[at, rank] >= 0).nonzero().flatten()
            found.append(
                Example(
                    float(self.values[at, rank]),
                    int(self.texts[at, rank]),
                    int(self.positions[at, rank]),
                    tuple(strings[int(token)] for token in self.context_tokens[at, rank, there]),
                    tuple(self.context_values[at, rank, there].tolist()),
                    middle - int(there[0]),
                )
            )
        return found

    def table(self) -> Table:
        """The best place of each item."""
        best = [(item, example) for item in self.items[:MOST_CARDS] for example in self.examples(item)[:1]]
        rows = [
            (item, f"{e.value:.4g}", e.text, e.pos, repr(e.tokens[e.peak]), repr("".join(e.tokens))) for item, e in best
        ]
        return Table.of(self.title, (self.measured.kind, "value", "text", "pos", "token", "around it"), rows)

    def _repr_html_(self) -> str:
        """A card for each of the first items."""
        cards = "".join(map(self._card, self.items[:MOST_CARDS]))
        more = len(self.items) - MOST_CARDS
        words = f"Not all is shown: {more} of {len(self.items)} left out; examples() has them." if more > 0 else ""
        return figure(self.title, cards, words)

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each place.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ImportError(missing("to_pandas", "notebook", error)) from error
        columns = (self.measured.kind, "rank", "value", "text", "pos", "token", "context")
        rows = [
            (item, rank, e.value, e.text, e.pos, e.tokens[e.peak], "".join(e.tokens))
            for item in self.items
            for rank, e in enumerate(self.examples(item))
        ]
        return pandas.DataFrame(rows, columns=list(columns))

    def _card(self, item: int) -> str:
        examples = self.examples(item)
        scale = Scale.of(torch.tensor([value for e in examples for value in e.values]))
        shown = [
            coloured_tokens_html(
                e.tokens, e.values, title=f"{e.value:.4g}: text {e.text}, pos {e.pos}", scale=scale, marked=e.peak
            )
            for e in examples
        ]
        return figure(f"{self.measured.kind} {item}{self._promoted(item)}", "".join(shown))

    def _promoted(self, item: int) -> str:
        """The tokens that it makes more likely, where it stands for a vector."""
        try:
            vector = self.measured.output(self.llm, item)
            if vector is None:
                return ""
            k = min(_PROMOTED, self.llm.model_info().d_vocab)
            return f", promotes {' '.join(map(repr, top_tokens_of(self.llm, vector, k=k).strings))}"
        except NotSupportedError:
            return ""
