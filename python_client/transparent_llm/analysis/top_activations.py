"""The texts of a data set in which neurons, heads or directions are most active.

The usual first look at what a neuron responds to, as in Bills et al., Language models can explain neurons in language
models (2023), and Neuroscope (Nanda 2022): the places of largest activation, with the text around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass

import torch
from jaxtyping import Float

from transparent_llm.analysis.counts import checked_count
from transparent_llm.analysis.dataset.chunks import RUNS_PER_CHUNK, Bounds, Sentence, chunks
from transparent_llm.analysis.dataset.examples import TopActivations
from transparent_llm.analysis.dataset.measured import Measured
from transparent_llm.analysis.dataset.positions import ALL, Positions
from transparent_llm.analysis.dataset.rows import ChunkReader, Wanted
from transparent_llm.analysis.dataset.top_places import TopPlaces
from transparent_llm.analysis.progress import Bar, Report
from transparent_llm.analysis.uncut import require_uncut
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import kind_of
from transparent_llm.runtime.indexing import integer

MOST_PLACES, MOST_NEIGHBOURS = 1000, 256
MOST_ELEMENTS = 2**26
"""Values of places and their neighbours that are kept, of all items together: 800 MB with their tokens."""

_MOST_BYTES = 2**30


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
