"""The numbers that are measured of rows, of the stream as it leaves the model or passes some place of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from transparent_llm.analysis.metrics import OF_TOKENS, Metric
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions.site import Site
from transparent_llm.runtime.indexing import checked_index
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.derived.comparison import divergence
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled
from transparent_llm_server.models.interventions.sites import checked_site
from transparent_llm_server.models.interventions.sources import Sources

_AT_ONCE = 32
"""Vectors whose scores of all tokens are held at a time."""

StreamAt = Callable[[Site], torch.Tensor]
"""The residual stream at a site [cell*row pos d_model]."""


@dataclass(frozen=True)
class Left:
    """What a pass left of its rows."""

    residual_out: torch.Tensor | None
    """[cell*row pos d_model]; None where no metric needs it."""

    scale: torch.Tensor | None
    """What the final norm divides by, where that is frozen [cell*row pos 1]."""

    stream_at: StreamAt


class Measures:
    """Of one sweep.

    Args:
        model: That runs.
        metrics: What is measured, of token ids.
        tokens: Token ids of the rows, without padding.
        base: The run, and `rows`: its rows that are swept.
        sources: Where directions come from.

    Raises:
        IndexOutOfRangeError: a token, position or layer that is not there.
        InvalidRequestError: a run of another shape, a direction without length or of another width, a row without a
            second token.
        NotSupportedError: the model has no such site.
    """

    def __init__(
        self,
        model: BridgedModel,
        metrics: Sequence[Metric],
        tokens: Sequence[Sequence[int]],
        base: RunValues,
        rows: Sequence[int],
        sources: Sources,
    ) -> None:
        self._model, self._metrics, self._tokens = model, metrics, tokens
        self._base, self._rows, self._sources = base, rows, sources
        self._made = [self._measure(metric) for metric in metrics]

    @property
    def sites(self) -> list[Site]:
        """Whose streams are looked at."""
        return [measure.site for measure in self._made if isinstance(measure, _Projection)]

    @property
    def needs_output(self) -> bool:
        """Whether any is of what the model gives in the end."""
        return any(not isinstance(measure, _Projection) for measure in self._made)

    @property
    def n_vectors(self) -> int:
        """Whose scores of all tokens are computed for one cell."""
        of_row = sum(isinstance(measure, _OfOutput) for measure in self._made)
        with_loss = any(isinstance(measure, _Loss) for measure in self._made)
        return of_row * len(self._tokens) + (sum(map(len, self._tokens)) if with_loss else 0)

    def of(self, left: Left, n_cells: int) -> torch.Tensor:
        """What is measured of each cell and row [cell metric row], float64 on the CPU; with its graph."""
        found = [measure.of(left, n_cells) for measure in self._made]
        return torch.stack([one.double().cpu().reshape(n_cells, len(self._tokens)) for one in found], dim=1)

    def _measure(self, metric: Metric) -> _Measure:
        positions = [checked_index("pos", metric.pos, len(row)) for row in self._tokens]
        if metric.measure == "projection":
            assert metric.site is not None  # a metric was checked
            assert metric.direction is not None
            direction = self._sources.vector(metric.direction)
            if tuple(direction.shape) != (self._model.d_model,) or not float(direction.norm()) > 0:
                raise InvalidRequestError(
                    f"the direction of a projection is a vector [{self._model.d_model}] that is not zero, got shape "
                    f"{list(direction.shape)}"
                )
            return _Projection(positions, checked_site(self._model, metric.site), direction / direction.norm())
        if metric.measure == "loss":
            alone = next((n for n, row in zip(self._rows, self._tokens, strict=True) if len(row) < 2), None)
            if alone is not None:
                raise InvalidRequestError(f"row {alone} has one token, and no next one whose loss could be measured")
            return _Loss(self._model, self._tokens)
        if metric.measure in OF_TOKENS:
            token, minus = metric.tokens_of_rows(len(self._tokens))
            checked = [[checked_index("token", t, self._model.d_vocab) for t in each] for each in (token, minus or ())]
            return _OfTokens(self._model, positions, metric.measure, checked[0], checked[1] or None)
        if metric.measure == "entropy":
            return _Entropy(self._model, positions)
        return _Divergence(self._model, positions, self._reference(metric, positions))

    def _reference(self, metric: Metric, positions: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of the run that is compared with [row vocab]."""
        values = self._base if metric.run is None else self._sources.values(metric.run)
        if metric.run is not None:
            lengths = values.mask().tensor().sum(dim=1).tolist()
            needed = self._base.mask().tensor().sum(dim=1).tolist()
            if lengths != needed:
                raise InvalidRequestError(
                    f"the run that kl compares with has rows of {lengths[:10]} tokens, the base run of {needed[:10]}"
                )
        return torch.cat(list(_logprobs(self._model, *values.capture.output_at(self._rows, positions))))


class _Measure:
    def of(self, left: Left, n_cells: int) -> torch.Tensor:
        """Of each row [cell*row]."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Projection(_Measure):
    positions: Sequence[int]
    site: Site
    direction: torch.Tensor

    def of(self, left: Left, n_cells: int) -> torch.Tensor:
        stream = left.stream_at(self.site)
        x = wide(stream[torch.arange(len(stream)), _repeated(self.positions, n_cells)])
        return x @ self.direction.to(x)


@dataclass(frozen=True)
class _OfOutput(_Measure):
    """Of the scores at one position of each row."""

    model: BridgedModel
    positions: Sequence[int]

    def vectors(self, left: Left, n_cells: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[cell*row d_model], and what the final norm divides them by."""
        assert left.residual_out is not None  # it is needed
        at = torch.arange(len(left.residual_out)), _repeated(self.positions, n_cells)
        return left.residual_out[at], None if left.scale is None else left.scale[at]


@dataclass(frozen=True)
class _OfTokens(_OfOutput):
    measure: str
    token: Sequence[int]
    minus: Sequence[int] | None

    def of(self, left: Left, n_cells: int) -> torch.Tensor:
        vectors, scale = self.vectors(left, n_cells)
        given = [self.token] if self.minus is None else [self.token, self.minus]
        ids = torch.stack([_repeated(each, n_cells) for each in given], dim=1)  # [cell*row 1 or 2]
        if self.measure == "logit":
            found = self._logits(vectors, scale, ids)
        else:
            found = self._of_all(vectors, scale, ids)
            found = found.exp() if self.measure == "prob" else found
        return found[:, 0] if self.minus is None else found[:, 0] - found[:, 1]

    def _logits(self, vectors: torch.Tensor, scale: torch.Tensor | None, ids: torch.Tensor) -> torch.Tensor:
        """Of these tokens alone."""
        found = torch.zeros(ids.shape, dtype=torch.float64)
        for token in torch.unique(ids).tolist():
            scores = wide(self.model.unembed(vectors, normalize=True, tokens=range(token, token + 1), scale=scale))
            found = torch.where(ids == token, scores.double().cpu(), found)
        return found

    def _of_all(self, vectors: torch.Tensor, scale: torch.Tensor | None, ids: torch.Tensor) -> torch.Tensor:
        parts = zip(_logprobs(self.model, vectors, scale), torch.split(ids, _AT_ONCE), strict=True)
        return torch.cat([logprobs.gather(1, at.to(logprobs.device)).double() for logprobs, at in parts])


@dataclass(frozen=True)
class _Entropy(_OfOutput):
    def of(self, left: Left, n_cells: int) -> torch.Tensor:
        return torch.cat(
            [-(p.exp() * p).nan_to_num(0.0).sum(1) for p in _logprobs(self.model, *self.vectors(left, n_cells))]
        )


@dataclass(frozen=True)
class _Divergence(_OfOutput):
    reference: torch.Tensor
    """[row vocab]"""

    def of(self, left: Left, n_cells: int) -> torch.Tensor:
        vectors, scale = self.vectors(left, n_cells)
        rows = torch.split(_repeated(range(len(self.reference)), n_cells), _AT_ONCE)
        found = []
        for logprobs, part in zip(_logprobs(self.model, vectors, scale), rows, strict=True):
            of_run = self.reference[part.to(self.reference.device)].double()
            found.append(divergence(logprobs.double(), of_run.to(logprobs.device)))
        return torch.cat(found)


@dataclass(frozen=True)
class _Loss(_Measure):
    model: BridgedModel
    tokens: Sequence[Sequence[int]]

    def of(self, left: Left, n_cells: int) -> torch.Tensor:  # noqa: ARG002 - the same of all
        assert left.residual_out is not None  # it is needed
        found = []
        for n, stream in enumerate(left.residual_out):
            row = self.tokens[n % len(self.tokens)]
            scale = None if left.scale is None else left.scale[n, : len(row) - 1]
            following = torch.split(torch.tensor(row[1:])[:, None], _AT_ONCE)
            parts = zip(_logprobs(self.model, stream[: len(row) - 1], scale), following, strict=True)
            each = torch.cat([logprobs.gather(1, at.to(logprobs.device))[:, 0].double() for logprobs, at in parts])
            found.append(-each.mean())
        return torch.stack(found)


def _logprobs(model: BridgedModel, vectors: torch.Tensor, scale: torch.Tensor | None) -> Iterator[torch.Tensor]:
    """Of the next token [n vocab], some vectors [n d_model] at a time."""
    for start in range(0, len(vectors), _AT_ONCE):
        raise_if_cancelled()
        at = slice(start, start + _AT_ONCE)
        part = None if scale is None else scale[at]
        yield wide(model.unembed(vectors[at], normalize=True, tokens=range(model.d_vocab), scale=part)).log_softmax(1)


def _repeated(of_rows: Sequence[int], n_cells: int) -> torch.Tensor:
    """For each row of each cell."""
    return torch.tensor(list(of_rows)).repeat(n_cells)
