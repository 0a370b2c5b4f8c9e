"""The texts of a data set in which neurons, heads or directions are most active.

The usual first look at what a neuron responds to, as in Bills et al., Language models can explain neurons in language
models (2023), and Neuroscope (Nanda 2022): the places of largest activation, with the text around them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float

from transparent_llm.analysis.counts import checked_count
from transparent_llm.analysis.dataset.chunks import RUNS_PER_CHUNK, Bounds, Sentence, chunks
from transparent_llm.analysis.dataset.examples import TopActivations
from transparent_llm.analysis.dataset.file import identity_of
from transparent_llm.analysis.dataset.measured import Measured
from transparent_llm.analysis.dataset.positions import ALL, Positions
from transparent_llm.analysis.dataset.rows import ChunkReader, Wanted
from transparent_llm.analysis.dataset.scan_file import ScanFile, Scanned
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
_LARGEST_PLACE_BYTES = 40
"""In a file, of a place without neighbours."""


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
    file: str | os.PathLike[str] | None = None,
    progress: bool | Report | None = None,
) -> TopActivations:
    """Where in a data set each neuron of a layer, each head, or each of some directions is most active.

    Texts are run in chunks, similar lengths together, and of each item only the best places so far are kept, so that
    memory is bounded. The current run stays what it is. `top_activations_by_part` gives what was found so far.

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
        max_sentences, max_tokens: In a chunk; text counts with its bytes of UTF-8, of heads divided by their number.
        file: Where what was found is kept after each chunk. After an interruption the same call goes on from there, to
            the same result; a finished one runs nothing, or texts that were added after a whole chunk. None: nowhere.
        progress: A function of the texts that are done, and of all (or None); a bar (True), none (False), or a bar if
            someone watches (None).

    Returns:
        Of equal values the one that comes first in the data set.

    Raises:
        InvalidRequestError: an argument that cannot be, or no text; a file that is damaged, or of something else.
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
        file=file,
        progress=progress,
    )
    (last,) = deque(found, maxlen=1)
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
    file: str | os.PathLike[str] | None = None,
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
    wanted = _Kept(k, context, once_per_text, Bounds(max_sentences, max_tokens))
    kept_in = None if file is None else wanted.file(Path(file), llm, measured)
    return _found(llm, texts, measured, wanted, kept_in, progress)


@dataclass(frozen=True)
class _Kept:
    k: int
    context: int
    once_per_text: bool
    bounds: Bounds

    def none_yet(self, n_items: int) -> TopPlaces:
        """Raises InvalidRequestError where so many items are too many."""
        needed = n_items * self.k * (2 * self.context + 1)
        if needed > MOST_ELEMENTS:
            raise InvalidRequestError(
                f"{self.k} places of each of {n_items} items with {self.context} neighbours on each side are "
                f"{needed:,} values, at most {MOST_ELEMENTS:,} are kept: ask for fewer items, a smaller k or context"
            )
        return TopPlaces(n_items, self.k, self.context, once_per_sentence=self.once_per_text)

    def file(self, path: Path, llm: TransparentLlm, measured: Measured) -> ScanFile:
        """That keeps what is found by this question to this model."""
        recipe = {
            "model": identity_of(llm),
            **measured.recipe(),
            "k": int(self.k),
            "context": int(self.context),
            "once_per_text": bool(self.once_per_text),
            "max_sentences": int(self.bounds.sentences),
            "max_tokens": int(self.bounds.tokens),
        }
        return ScanFile(path, json.dumps(recipe), MOST_ELEMENTS * _LARGEST_PLACE_BYTES)

    def before(self, file: ScanFile | None) -> Scanned | None:
        """What an earlier call has found."""
        return None if file is None else file.load(self.k, self.context, once_per_sentence=self.once_per_text)


def _found(
    llm: TransparentLlm,
    texts: Iterable[Sentence],
    measured: Measured,
    wanted: _Kept,
    file: ScanFile | None,
    progress: bool | Report | None,
) -> Iterator[TopActivations]:
    bounds, n_sites = wanted.bounds, len(measured.sites)
    reader = ChunkReader(llm.copy(), Wanted(measured.sites, Positions(ALL), None, bounds, _MOST_BYTES))
    of_chunks = Bounds(bounds.sentences, max(1, bounds.tokens // (RUNS_PER_CHUNK * n_sites)))
    total = len(texts) if isinstance(texts, Sized) else None
    before, digest, n_texts = wanted.before(file), hashlib.sha256(), 0
    kept, n_tokens, n_before = (before.kept, before.n_tokens, before.n_texts) if before is not None else (None, 0, 0)
    with Bar("top activations", "texts", total, progress) as bar:
        for chunk in chunks(texts, of_chunks):
            digest.update(chunk.digest.encode())
            n_texts = chunk.stop
            if before is not None and chunk.first < n_before:
                bar.add(len(chunk.sentences))
                if n_texts >= n_before:
                    before.require_texts(n_texts, digest.hexdigest())
                    yield _result(llm, measured, before)
                continue
            rows = reader.read(chunk)
            numbers, values = measured.values(rows.values)
            if kept is None:
                kept = wanted.none_yet(values.shape[1])
            kept.add(values, rows)
            n_tokens += len(values)
            bar.add(len(chunk.sentences))
            scanned = Scanned(numbers, kept, n_texts, n_tokens, digest.hexdigest())
            if file is not None:
                file.save(scanned)
            yield _result(llm, measured, scanned)
    if before is not None and n_texts < n_before:
        before.require_texts(n_texts, digest.hexdigest())
    if kept is None:
        raise InvalidRequestError("there is no text")


def _result(llm: TransparentLlm, measured: Measured, scanned: Scanned) -> TopActivations:
    kept = scanned.kept
    return TopActivations(
        measured,
        scanned.items,
        kept.values.clone(),
        kept.sentences.clone(),
        kept.positions.clone(),
        kept.tokens.clone(),
        kept.around.clone(),
        scanned.n_texts,
        scanned.n_tokens,
        llm,
    )
