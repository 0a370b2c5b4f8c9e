"""The values of a chunk, a row for each sentence or for each of its positions, in the order of the sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.dataset.chunks import Bounds, Chunk
from transparent_llm.analysis.dataset.positions import Positions
from transparent_llm.analysis.dataset.reading import Block, blocks, values_of
from transparent_llm.analysis.dataset.site import Site
from transparent_llm.analysis.interrupt import check
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotRunError, NotSupportedError


@dataclass(frozen=True, eq=False)
class Rows:
    """What was read of some neighbouring sentences."""

    values: Mapping[str, Float[torch.Tensor, "row ..."]]
    """Of each read under its name, such as residual_out.5."""

    sentence: Int[torch.Tensor, "row"]
    """Which sentence of the data set each row is of (int64)."""

    pos: Int[torch.Tensor, "row"] | None
    """Its position in that sentence (int64). None: a row is a mean over positions."""

    token: Int[torch.Tensor, "row"] | None
    """The id of the token there (int64). None: as `pos`."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it by name."""
        places = {"sentence": self.sentence, "pos": self.pos, "token": self.token}
        return {**self.values, **{name: tensor for name, tensor in places.items() if tensor is not None}}


@dataclass(frozen=True)
class Wanted:
    """What is read, and how much of it at a time."""

    sites: tuple[Site, ...]
    positions: Positions
    dtype: torch.dtype | None
    """Of the rows. None: the model's."""

    bounds: Bounds
    max_bytes: int
    """That the rows of a chunk may have."""


class ChunkReader:
    """Runs the sentences of chunks, and reads them.

    Args:
        llm: Its current run is changed.
        wanted: What is read.
    """

    def __init__(self, llm: TransparentLlm, wanted: Wanted) -> None:
        self._llm, self._wanted = llm, wanted
        self._others_run = _run_id(llm)
        self._place_bytes = 0
        """Of all reads at one place; known after the first."""

    def read(self, chunk: Chunk) -> Rows:
        """All rows of a chunk.

        Raises:
            InvalidRequestError: they would have more than `max_bytes`.
            IndexOutOfRangeError: a sentence has no such position.
        """
        found: dict[int, dict[str, torch.Tensor]] = {}
        held = 0
        for run in chunk.runs(self._wanted.bounds):
            for rows in self._runnable(chunk, run):
                check()
                found.update(self._run(chunk, rows, held))
                held = sum(tensor.nbytes for row in found.values() for tensor in row.values())
        order = range(len(chunk.sentences))
        gathered = {name: torch.cat([found[row][name] for row in order]) for name in found[0]}
        pos, token = (gathered.pop(name, None) for name in ("pos", "token"))
        return Rows(gathered, gathered.pop("sentence"), pos, token)

    def _runnable(self, chunk: Chunk, rows: list[int]) -> Iterator[list[int]]:
        """The rows as one run, which is the current one then; or one by one, where padding is not known."""
        chunk.input_of(rows).run_on(self._llm)
        try:
            self._llm.last()
        except NotSupportedError:
            if len(rows) > 1:
                for row in rows:
                    chunk.input_of([row]).run_on(self._llm)
                    yield [row]
                return
        yield rows

    def _run(self, chunk: Chunk, rows: Sequence[int], held: int) -> dict[int, dict[str, torch.Tensor]]:
        """Of the current run, for each of its rows."""
        tokens = self._llm.tokens().cpu()
        wanted = [
            self._wanted.positions.within(n, chunk.first + row)
            for n, row in zip(_lengths(self._llm, tokens), rows, strict=True)
        ]
        values = self._values(blocks(wanted), held, chunk)
        self._release()
        found, start = {}, 0
        for at, (row, positions) in enumerate(zip(rows, wanted, strict=True)):
            part = {name: value[start : start + len(positions)] for name, value in values.items()}
            found[row] = self._rows(part, chunk.first + row, positions, tokens[at])
            start += len(positions)
        return found

    def _values(self, wanted: list[Block], held: int, chunk: Chunk) -> dict[str, torch.Tensor]:
        """Those of the first place alone where it is not known how large they are."""
        if not self._place_bytes:
            first = wanted[0]
            one = Block(first.rows[:1], first.positions[:1])
            values = values_of(self._llm, self._wanted.sites, [one], self._sent_as)
            self._place_bytes = sum(value.nbytes for value in values.values())
        size = held + self._place_bytes * sum(block.n_places for block in wanted)
        if size > self._wanted.max_bytes:
            raise InvalidRequestError(
                f"the rows of sentences {chunk.first} to {chunk.stop - 1} would have {size:,} bytes and more, and "
                f"max_bytes is {self._wanted.max_bytes:,}: ask for smaller chunks (max_sentences is "
                f"{self._wanted.bounds.sentences}, max_tokens {self._wanted.bounds.tokens}), fewer reads or a smaller "
                "dtype, or allow more",
                metadata={"bytes": str(size), "max_bytes": str(self._wanted.max_bytes)},
            )
        return values_of(self._llm, self._wanted.sites, wanted, self._sent_as)

    def _release(self) -> None:
        """The run is not read again, and a server need not keep it in the place of others; unless it is the one that
        whoever gave this model has."""
        release, run_id = getattr(self._llm, "release", None), _run_id(self._llm)
        if callable(release) and run_id != self._others_run:
            release()

    @property
    def _sent_as(self) -> torch.dtype | None:
        """A mean is rounded once, when it is made."""
        return None if self._wanted.positions.is_mean else self._wanted.dtype

    def _rows(
        self, values: Mapping[str, torch.Tensor], sentence: int, positions: range, tokens: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        is_mean = self._wanted.positions.is_mean
        found = {
            name: self._made(value.float().mean(0, keepdim=True), value.dtype) if is_mean else self._made(value)
            for name, value in values.items()
        }
        found["sentence"] = torch.full((1 if is_mean else len(positions),), sentence)
        if not is_mean:
            found["pos"] = torch.tensor(positions, dtype=torch.int64)
            found["token"] = tokens[positions.start : positions.stop].clone()
        return found

    def _made(self, value: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """In the type that rows have; a copy, which does not hold the whole run."""
        return value.to(self._wanted.dtype or dtype or value.dtype, copy=True)


def _lengths(llm: TransparentLlm, tokens: Int[torch.Tensor, "batch pos"]) -> list[int]:
    """Tokens of each row; a row alone has no padding."""
    return [tokens.shape[1]] if tokens.shape[0] == 1 else [int(last) + 1 for last in llm.last()]


def _run_id(llm: TransparentLlm) -> str | None:
    """The name of the current run, where there is one and runs have names."""
    named = getattr(llm, "run_id", None)
    try:
        return str(named()) if callable(named) else None
    except NotRunError:
        return None
