"""A data set through a model: the values of chosen positions of many sentences, the usual input of a probe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from jaxtyping import Float

from transparent_llm.analysis.dataset.chunks import Bounds, Chunk, Sentence, chunks
from transparent_llm.analysis.dataset.file import GrowingFile, identity_of
from transparent_llm.analysis.dataset.positions import Positions
from transparent_llm.analysis.dataset.rows import ChunkReader, Rows, Wanted
from transparent_llm.analysis.dataset.site import ReadSpec, sites
from transparent_llm.analysis.progress import Bar, Report
from transparent_llm.analysis.uncut import require_uncut
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.extras import missing
from transparent_llm.quoting import kind_of
from transparent_llm.runtime.indexing import integer
from transparent_llm.selection import require_dtype

if TYPE_CHECKING:
    import pyarrow

MAX_SENTENCES = 256
MAX_TOKENS = 4096
MAX_BYTES = 2**30


def activations(
    llm: TransparentLlm,
    sentences: Iterable[Sentence],
    read: ReadSpec | list[ReadSpec],
    positions: str | SupportsIndex = "last",
    *,
    dtype: torch.dtype | None = None,
    max_sentences: int = MAX_SENTENCES,
    max_tokens: int = MAX_TOKENS,
    max_bytes: int = MAX_BYTES,
    progress: bool | Report | None = None,
) -> Activations:
    """What a model has at chosen positions of many sentences. Nothing is run before the answer is used.

    Sentences are run in chunks, and within a chunk similar lengths together, so that little is padding; rows come in
    the order of the sentences. Of a remote model only the positions that are wanted travel (for a mean, all tokens of
    a sentence), and a run is released when it has been read. The current run of `llm` stays what it is.

    Args:
        llm: Any model.
        sentences: Text, or token ids for each. An iterator can be gone through once.
        read: As in `fetch`: ("residual_out", 5), "logits"; of methods that take `batch_i` and `pos` without these:
            ("neuron_activations", 5), ("attention_output", 5, 3). Or a list of them.
        positions: "last" (the last token of each sentence), a position (a negative one counts from a sentence's last
            token), "all" (a row for each token, sentence after sentence) or "mean" (over all tokens, a beginning token
            included, in float32, rounded once).
        dtype: Of the rows, in which they also travel. None: the model's.
        max_sentences: In a chunk, which is what is in memory at a time.
        max_tokens: In a run, padding included. Text counts with its bytes of UTF-8, of which a tokenizer hardly makes
            more tokens. A longer sentence is run alone. A chunk has at most 16 times as many.
        max_bytes: That the rows of a chunk may have.
        progress: A function that is given the number of sentences that are done, and of all (or None); a bar (True),
            none (False), or a bar if someone watches (None).

    Raises:
        InvalidRequestError: a read, positions or a limit that there cannot be. A sentence that is wrong is named when
            it is read.
    """
    if isinstance(sentences, str | bytes) or not isinstance(sentences, Iterable):
        raise InvalidRequestError(f"activations takes a list of sentences, got {kind_of(sentences)}")
    require_uncut(llm)
    require_dtype("activations", dtype)
    if dtype is not None and not dtype.is_floating_point:
        raise InvalidRequestError(f"activations takes a floating dtype, got {dtype}", reason="INVALID_DTYPE")
    limits = {"max_sentences": max_sentences, "max_tokens": max_tokens, "max_bytes": max_bytes}
    for name, limit in limits.items():
        if integer(name, limit) < 1:
            raise InvalidRequestError(f"{name} must be at least 1, got {limit}", metadata={"argument": name})
    found, is_one = sites(read)
    wanted = Wanted(found, Positions.of(positions), dtype, Bounds(max_sentences, max_tokens), max_bytes)
    return Activations(llm, sentences, wanted, is_one, progress)


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """Rows of a data set: chunk by chunk as an iterator, in memory, or in a file. The model runs for each use anew."""

    _llm: TransparentLlm
    _sentences: Iterable[Sentence]
    _wanted: Wanted
    _is_one: bool
    _progress: bool | Report | None
    _begun: list[None] = field(default_factory=list)

    def __repr__(self) -> str:
        n = len(self._sentences) if isinstance(self._sentences, Sized) else "some"
        return f"<Activations: {', '.join(self.names)} at {self._wanted.positions.which} of {n} sentences>"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the reads, such as residual_out.5."""
        return tuple(site.name for site in self._wanted.sites)

    def __iter__(self) -> Iterator[Rows]:
        """The rows of one chunk after another."""
        reader = ChunkReader(self._llm.copy(), self._wanted)
        with self._bar() as bar:
            for chunk in self._chunks():
                yield reader.read(chunk)
                bar.add(len(chunk.sentences))

    def tensor(self) -> Float[torch.Tensor, "row ..."]:
        """All rows of the only read.

        Raises:
            InvalidRequestError: there are several reads, or no sentence.
        """
        if not self._is_one:
            raise InvalidRequestError(f"there are several reads, {', '.join(self.names)}: take tensors()[NAME]")
        return self.tensors()[self.names[0]]

    def tensors(self) -> dict[str, torch.Tensor]:
        """All rows: a tensor for each read under its name; `sentence` (int64), which of them a row is of; and, but for
        a mean, `pos` and `token` (int64), its position and the token's id.

        Raises:
            InvalidRequestError: there is no sentence.
        """
        parts = [rows.tensors() for rows in self]
        _require_sentences(len(parts))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def save(self, path: str | Path) -> Path:
        """Write `tensors` to a safetensors file, with the memory of a chunk.

        Until all is there, each chunk is a file in the folder PATH.part: after an interruption the same call goes on
        from there, and runs nothing where the file is whole. The file then takes its place at once.

        Raises:
            InvalidRequestError: it cannot be written; something else is there, or rows of other sentences, reads or of
                another model; or there is no sentence.
        """
        target = Path(path)
        growing = GrowingFile(target, self._recipe())
        reader, n = ChunkReader(self._llm.copy(), self._wanted), 0
        with self._bar() as bar:
            for chunk in self._chunks():
                if not growing.has(chunk):
                    growing.add(chunk, reader.read(chunk).tensors())
                n = chunk.stop
                bar.add(len(chunk.sentences))
        _require_sentences(n)
        growing.finish(n)
        return target

    def to_arrow(self) -> pyarrow.Table:
        """The same as a table of Apache Arrow: a list of fixed size for each row of a read (of more axes one after the
        other; their shape is in the field's metadata), bfloat16 as float.

        Raises:
            ImportError: pyarrow is not installed.
            InvalidRequestError: there is no sentence.
        """
        try:
            import pyarrow
        except ModuleNotFoundError as error:
            raise ImportError(missing("to_arrow", "arrow", error)) from error
        batches = [
            pyarrow.table([_column(tensor) for tensor in named.values()], schema=_schema(named))
            for named in (rows.tensors() for rows in self)
        ]
        _require_sentences(len(batches))
        table: pyarrow.Table = pyarrow.concat_tables(batches)
        return table

    def _chunks(self) -> Iterator[Chunk]:
        if iter(self._sentences) is self._sentences:
            if self._begun:
                raise InvalidRequestError("the sentences are an iterator that was used up: give a list to use it twice")
            self._begun.append(None)
        return chunks(self._sentences, self._wanted.bounds)

    def _bar(self) -> Bar:
        total = len(self._sentences) if isinstance(self._sentences, Sized) else None
        return Bar("activations", "sentences", total, self._progress)

    def _recipe(self) -> str:
        """What makes the same rows of the same sentences."""
        return json.dumps(
            {
                "model": identity_of(self._llm),
                "reads": list(self.names),
                "positions": self._wanted.positions.which,
                "dtype": str(self._wanted.dtype),
                "max_sentences": self._wanted.bounds.sentences,
                "max_tokens": self._wanted.bounds.tokens,
            }
        )


def _require_sentences(n: int) -> None:
    if not n:
        raise InvalidRequestError("there is no sentence")


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Of a type that Arrow has, each row flat."""
    typed = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
    return typed.flatten(1) if typed.ndim > 1 else typed


def _column(tensor: torch.Tensor) -> Any:
    import pyarrow

    plain = _plain(tensor)
    flat = pyarrow.array(plain.reshape(-1).numpy())
    return flat if plain.ndim == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, plain.shape[1])


def _schema(named: dict[str, torch.Tensor]) -> Any:
    import pyarrow

    fields = [
        pyarrow.field(name, _column(tensor[:0]).type, metadata={"shape": json.dumps(list(tensor.shape[1:]))})
        for name, tensor in named.items()
    ]
    return pyarrow.schema(fields)
