"""Path patching: which heads or feed-forward parts act on a number through one place of a model.

As in Wang et al., Interpretability in the Wild (2022), appendix B, and Goldowsky-Dill et al., Localizing Model Behavior
with Path Patching (2023). For each sender three runs of one row, the base: one without edits; one in which the sender
gives what it gave in another run, the source, and all heads give what they gave in the base, so that nothing reaches
the receiver through them; and one in which the receiver alone has what it had in the second. Of the third the metric is
measured. Senders are rows of shared runs, some dozens at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.progress import Bar, Report
from transparent_llm.analysis.reading import read_all
from transparent_llm.analysis.rows import Row, layer_of
from transparent_llm.analysis.sweeps import Metric
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.interventions import Intervention, Site, ffn_out, freeze, head, patch, residual_out
from transparent_llm.interventions.intervention import Positions
from transparent_llm.interventions.own import Editable
from transparent_llm.interventions.site import SiteKind
from transparent_llm.quoting import kind_of

Senders = Literal["head", "ffn_out"]

_MOST_CELLS = 64
"""Of one run: edits of one run are bounded."""

_MOST_POSITIONS = 4096
"""Of one run."""

_MOST_PLACES = 2**18
"""Positions that the edits of one run may select together, each as often as an edit does."""

_BEFORE: dict[SiteKind, tuple[int, int]] = {
    SiteKind.RESIDUAL_IN: (0, 0),
    SiteKind.RESIDUAL_AFTER_ATTN: (1, 0),
    SiteKind.RESIDUAL_OUT: (1, 1),
    SiteKind.QUERY: (0, 0),
    SiteKind.KEY: (0, 0),
    SiteKind.VALUE: (0, 0),
    SiteKind.PATTERN: (0, 0),
    SiteKind.NEURONS: (1, 0),
}
"""Of each kind of receiver, whether heads and whether the feed-forward part of its own layer come before it."""


def path_patch(
    source: TransparentLlm,
    base: TransparentLlm,
    receivers: Site | Sequence[Site],
    metric: Metric,
    *,
    senders: Senders = "head",
    freeze_ffn: bool = False,
    positions: Positions = "all",
    source_row: int = 0,
    base_row: int = 0,
    progress: bool | Report | None = None,
) -> Labelled:
    """What the metric of the base row becomes where one sender has what the source row has, for the receivers only.

    Norms are computed of what they are given. The effect on the metric goes from the receivers on through the whole
    model; with `residual_out(-1)` for receiver it is the direct effect on the logits.

    Args:
        source: An object whose current run has the source row, such as the corrupt one.
        base: An object of the same model whose current run has the base row, of as many tokens, such as the clean one.
            Its tokens are run again, without edits.
        receivers: A site, or several that are patched together: `residual_in`, `residual_after_attn`, `residual_out`,
            `query`, `key`, `value` or `pattern` of one head or of all heads of a layer, `neurons`.
        metric: What is measured.
        senders: "head": each head [layer head]; "ffn_out": each feed-forward part [layer]. Those of the layers that
            come before a receiver; one that comes after another receiver does nothing through that.
        freeze_ffn: False: feed-forward parts between sender and receiver are computed of what they are given, as in
            Wang et al.: a path through them is direct. True: they too give what they gave in the base, so that only
            what the sender adds to the residual stream reaches the receiver.
        positions: Of the receivers: "all", "last" or a list. Senders are patched at all positions.
        source_row: Of the source's run.
        base_row: Of the base's run.
        progress: A bar (True), none (False), one if someone watches (None), or a function called with the senders that
            are done, and all of them.

    Returns:
        `value`: the metric; `score`: (value - base) / (source - base), 0 where nothing goes that way, 1 where it is
        what the source row has; NaN where both rows have the same. The title says both.

    Raises:
        InvalidRequestError: rows of different length, no receiver, one that is none of these or has no sender before
            it, another choice of senders or measure.
        NotSupportedError: the model has no such site, or runs of it cannot be edited.
    """
    from_row, row = _rows(source, source_row, base, base_row)
    checked_choice("senders", senders, ("head", "ffn_out"))
    meter = _Meter(base, metric.of_ids(base, row.index), row.position(metric.pos))
    paths = _Paths(source, from_row.index, base, row, _checked(receivers), senders, freeze_ffn, positions)
    of_source = meter.measured(source, [from_row.index])[0]
    of_base, values = paths.values(meter, progress)
    span = of_source - of_base
    score = (values - of_base) / (span if span else float("nan"))
    title = (
        f"{metric.measure} with one {senders} of the source row on its way to {', '.join(map(str, paths.receivers))} "
        f"(source {float(of_source):.4g}, base {float(of_base):.4g})"
    )
    return _labelled(title, value=values, score=score)


def _rows(source: TransparentLlm, source_row: int, base: TransparentLlm, base_row: int) -> tuple[Row, Row]:
    if not isinstance(base, Editable):
        raise NotSupportedError(f"runs of {type(base).__name__} cannot be edited")
    rows = Row.of(source, source_row), Row.of(base, base_row)
    if rows[0].n_tokens != rows[1].n_tokens:
        raise InvalidRequestError(
            f"the source row has {rows[0].n_tokens} tokens, the base row {rows[1].n_tokens}: they must have as many, "
            "so that each position has one to be taken from"
        )
    return rows


def _labelled(title: str, **tensors: torch.Tensor) -> Labelled:
    """[layer head] or [layer]."""
    shape = next(iter(tensors.values())).shape
    axes = tuple(Axis(name, range(n)) for name, n in zip(("layer", "head"), shape, strict=False))
    names = tuple(axis.name for axis in axes)
    return Labelled(title, axes, {name: OnAxes(one, names) for name, one in tensors.items()})


def _checked(receivers: Site | Sequence[Site]) -> tuple[Site, ...]:
    if not isinstance(receivers, Site | Iterable):
        raise InvalidRequestError(f"receivers are sites such as query(3, 1), got {kind_of(receivers)}")
    found = (receivers,) if isinstance(receivers, Site) else tuple(receivers)
    if not found:
        raise InvalidRequestError("receivers is empty: name at least one site, such as residual_out(-1)")
    for each in found:
        if not isinstance(each, Site):
            raise InvalidRequestError(f"receivers are sites such as query(3, 1), got {kind_of(each)}")
        if each.kind not in _BEFORE:
            known = ", ".join(kind.value for kind in _BEFORE)
            raise InvalidRequestError(f"{each} cannot be a receiver: it must be one of {known}")
    return found


class _Paths:
    """From all senders of one kind to some receivers, on objects of its own."""

    def __init__(
        self,
        source: TransparentLlm,
        source_row: int,
        base: TransparentLlm,
        row: Row,
        receivers: tuple[Site, ...],
        senders: str,
        freeze_ffn: bool,
        positions: Positions,
    ) -> None:
        self._source, self._source_row = source, source_row
        self._base, self._sent, self._received = base.copy(), base.copy(), base.copy()
        self._tokens: list[int] = base.tokens()[row.index, : row.n_tokens].tolist()
        self._n_rows = 0
        """Of the base's run."""
        self.receivers = receivers
        self._receive = [patch(each, self._sent, positions=positions) for each in receivers]
        before = [[layer_of(base, each.layer) + more for more in _BEFORE[each.kind]] for each in receivers]
        n_heads, n_ffns = (max(counts) for counts in zip(*before, strict=True))
        n_layers = n_heads if senders == "head" else n_ffns
        if not n_layers:
            raise InvalidRequestError(
                f"no {senders} comes before {', '.join(map(str, receivers))}: layers count from 0"
            )
        across = range(base.model_info().n_heads) if senders == "head" else (None,)
        self._senders = [
            head(layer, n) if senders == "head" else ffn_out(layer) for layer in range(n_layers) for n in across
        ]
        outputs = residual_out(-1), residual_out(base.model_info().n_layers - 1)
        self._is_output = all(each in outputs for each in receivers) and self._receive[0].positions == "all"
        self._shape = (n_layers, len(across)) if senders == "head" else (n_layers,)
        self._frozen = [*map(head, range(n_heads)), *(map(ffn_out, range(n_ffns)) if freeze_ffn else ())]

    def values(self, meter: _Meter, progress: bool | Report | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The metric of the base, and that of each sender."""
        found: list[torch.Tensor] = []
        of_base = torch.empty(0)
        with Bar("paths", "senders", len(self._senders), progress) as bar:
            for part in self._parts():
                if len(part) != self._n_rows:  # as many rows, so that what is frozen is the same to the bit
                    self._release_base()
                    self._run(self._base, len(part))
                    self._n_rows = len(part)
                    of_base = of_base if found else meter.measured(self._base, [0])
                found.append(self._through(part, meter))
                bar.add(len(part))
        self._release_base()
        return of_base[0], torch.cat(found).reshape(self._shape)

    def _parts(self) -> list[list[Site]]:
        """Senders that share runs, parts as even as can be: each size needs a run of the base of its own."""
        n_tokens, n_senders = len(self._tokens), len(self._senders)
        n_edits = len(self._frozen) + len(self.receivers) + 1
        most = max(1, min(_MOST_CELLS, _MOST_POSITIONS // n_tokens, _MOST_PLACES // (n_tokens * n_edits)))
        size = math.ceil(n_senders / math.ceil(n_senders / most))
        return [self._senders[start : start + size] for start in range(0, n_senders, size)]

    def _through(self, senders: Sequence[Site], meter: _Meter) -> torch.Tensor:
        """The metric of each."""
        still = [freeze(site, self._base) for site in self._frozen if site.layer >= senders[0].layer]
        sent = [
            patch(site, self._source, rows=[row], source_rows=[self._source_row]) for row, site in enumerate(senders)
        ]
        self._run(self._sent, len(senders), *still, *sent)
        if not self._is_output:
            self._run(self._received, len(senders), *self._receive)
        values = meter.measured(self._sent if self._is_output else self._received, range(len(senders)))
        _release(self._sent)
        if not self._is_output:
            _release(self._received)
        return values

    def _release_base(self) -> None:
        """Unless it is of one row, and so may be the caller's own run."""
        if self._n_rows > 1:
            _release(self._base)

    def _run(self, llm: TransparentLlm, n_rows: int, *edits: Intervention) -> None:
        """The base row so many times."""
        llm.run_tokens([self._tokens] * n_rows, edits=edits)  # type: ignore[call-arg]  # it has edits


class _Meter:
    """A metric of token ids at a position, counted from the first."""

    def __init__(self, llm: TransparentLlm, metric: Metric, pos: int) -> None:
        self._measure = checked_choice("measure", metric.measure, ("logit", "logprob", "prob"))
        of_row, less = metric.tokens_of_rows(1)
        self._tokens, self._pos = (*of_row, *(less or ())), (pos,)
        self._last = llm.model_info().n_layers - 1

    def measured(self, llm: TransparentLlm, rows: Iterable[int]) -> torch.Tensor:
        """Of these rows of the current run: the lens of the last layer, of which a server sends a few numbers each."""
        asked = (self._last, None, "out", "out", "own", self._pos, 0, 0, self._tokens, False)
        found = read_all(llm, [("layer_lens", row, *asked) for row in rows])
        values = torch.cat([one.target_logits for one in found])
        if self._measure != "logit":
            values = values - torch.stack([one.logsumexp for one in found])
        if self._measure == "prob":
            values = values.exp()
        return values[:, 0] if len(self._tokens) == 1 else values[:, 0] - values[:, 1]


def _release(llm: TransparentLlm) -> None:
    """A server need not keep the current run any longer."""
    release = getattr(llm, "release", None)
    if release is not None:
        release()
