"""What each token of a text hangs on: the attribution of every token to those before it, one row for each.

What inseq calls the attribution of a sequence (Sarti et al., 2023): for each token, how likely it was where it stands,
and what every token before it did for that. Of a text that a model wrote itself it says where each word came from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, SupportsIndex, get_args

import torch

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.differentiation import Differentiation, Form, Frozen, Path, SiteGradient
from transparent_llm.analysis.gradient_grids import differentiable
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.metrics import OF_TOKENS, Metric
from transparent_llm.analysis.progress import Bar, Report
from transparent_llm.analysis.rows import Row
from transparent_llm.analysis.sweep_cells import MOST_METRICS, Cell, Sweep
from transparent_llm.analysis.sweeps import sweepable
from transparent_llm.analysis.token_names import TokenName, token_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import Intervention, residual_in, zero
from transparent_llm.runtime.indexing import checked_index

Method = Literal["input_x_gradient", "saliency", "integrated_gradients", "occlusion"]
OfToken = Literal["logprob", "logit", "prob"]

_FORMS: dict[str, Form] = {"input_x_gradient": "times_activation", "saliency": "norm"}


def sequence_attribution(
    llm: TransparentLlm,
    method: Method = "input_x_gradient",
    *,
    measure: OfToken = "logprob",
    from_pos: SupportsIndex = 1,
    following: TokenName | None = None,
    batch_i: int = 0,
    baseline: Literal["zero"] | TokenName = "zero",
    steps: int = 50,
    frozen: Collection[Frozen] = (),
    edits: Sequence[Intervention] = (),
    progress: bool | Report | None = None,
) -> Labelled:
    """What made each token of a row as likely as it was: a number for every token before it.

    After `generate` the current run is of prompt and output without the last token, which the model has not read:
    `from_pos=n_tokens_of_the_prompt, following=last_token_id` asks for what was written. It takes a gradient for each
    token, or `steps` of them.

    Args:
        llm: An object with a current run, without edits.
        method: As the functions of `gradients` of that name, by the embedding. "occlusion": what the measure loses
            where the embedding of one token is 0; measured, and no estimate.
        measure: Of each token at the position before it: its log-probability (natural), logit or probability.
        from_pos: The first token that is explained, from 1, as nothing stands before the first; negative: from the end.
        following: The id or the text of a token behind the row, which is explained as the last one.
        batch_i: The row.
        baseline: Of integrated gradients: as there.
        steps: Of integrated gradients: as there.
        frozen: Of saliency and input x gradient: as in `gradients.gradient`.
        edits: The row is explained as it is in the model with these.
        progress: As in `sweeps.patch_sweep`, of tokens.

    Returns:
        `value` [target source], 0 where the source does not come before the target; `measure` [target], what is
        explained; of integrated gradients also `delta` [target]. Axes have the tokens.

    Raises:
        InvalidRequestError: nothing to explain, a text that is no token, or a setting that the method has not.
        IndexOutOfRangeError: no such row or position.
        NotSupportedError, TooLargeError: as `gradients.gradient`, or as `sweeps.ablation_sweep`.
    """
    checked_choice("method", method, get_args(Method))
    checked_choice("measure", measure, OF_TOKENS)
    path = _path(llm, method, baseline, steps)
    if frozen and method not in _FORMS:
        raise InvalidRequestError(f"{method} has no frozen parts, only {' and '.join(_FORMS)} have")
    text = _Text.of(llm, batch_i, following)
    targets = text.targets(from_pos)
    metrics = [Metric((text.ids[target],), pos=target - 1, measure=measure) for target in targets]
    if method == "occlusion":
        lines = _occluded(llm, text.row, metrics, edits)
    else:
        sites = (SiteGradient(residual_in(0), _FORMS[method]),) if method in _FORMS else ()
        asked = Differentiation(metrics[0], sites, (text.row.index,), tuple(frozen), path, tuple(edits))
        lines = (_differentiated(llm, replace(asked, metric=metric)) for metric in metrics)
    with Bar("attribution", "tokens", len(targets), progress) as bar:
        told = list(_counted(lines, bar))
    return _labelled(text, targets, told, f"{method} of the {measure} of each token by those before it")


class _Text(NamedTuple):
    """A row, and a token that may follow it."""

    row: Row
    ids: list[int]
    words: list[str]

    @classmethod
    def of(cls, llm: TransparentLlm, batch_i: int, following: TokenName | None) -> _Text:
        row = Row.of(llm, batch_i)
        ids, words = llm.tokens()[row.index, : row.n_tokens].tolist(), row.words(llm)
        if following is not None:
            ids.append(token_of(llm, "following", following))
            words.extend(llm.tokens_to_strings(torch.tensor(ids[-1:])))
        return cls(row, ids, words)

    def targets(self, from_pos: SupportsIndex) -> range:
        end = len(self.ids)
        if end < 2:
            raise InvalidRequestError(
                f"row {self.row.index} has 1 token, which nothing stands before: name one that follows it"
            )
        first = checked_index("from_pos", from_pos, end, end)
        if first == 0:
            raise InvalidRequestError("nothing stands before the token at position 0: from_pos is 1 at least")
        return range(first, end)


class _Line(NamedTuple):
    """Of one token."""

    value: torch.Tensor
    """[pos]"""

    measure: float
    delta: float | None = None


def _counted(lines: Iterable[_Line], bar: Bar) -> Iterator[_Line]:
    for line in lines:
        yield line
        bar.add(1)


def _path(llm: TransparentLlm, method: str, baseline: str | int, steps: int) -> Path | None:
    if method == "integrated_gradients":
        return Path("zero" if baseline == "zero" else token_of(llm, "baseline", baseline), steps)
    if baseline != "zero":
        raise InvalidRequestError(f"{method} has no baseline, only integrated_gradients have one")
    return None


def _differentiated(llm: TransparentLlm, asked: Differentiation) -> _Line:
    found = differentiable(llm).gradients(asked)
    measure = float(found.metric[0])
    if found.integrated is None:
        return _Line(found.sites[0][0], measure)
    return _Line(found.integrated.values[0].sum(dim=-1), measure, float(found.integrated.delta[0]))


def _occluded(
    llm: TransparentLlm, row: Row, metrics: Sequence[Metric], edits: Sequence[Intervention]
) -> Iterator[_Line]:
    """By sweeps over the positions, each of as many tokens as one sweep measures."""
    cells = tuple(Cell(positions=(pos,)) for pos in range(row.n_tokens))
    template = zero(residual_in(0), rows=[row.index])
    for first in range(0, len(metrics), MOST_METRICS):
        measured = tuple(metrics[first : first + MOST_METRICS])
        changed = torch.empty(len(cells), len(measured), dtype=torch.float64, device="cpu")
        baselines = torch.empty(len(measured), dtype=torch.float64, device="cpu")
        for part in sweepable(llm).sweep(Sweep((template,), cells, measured, (row.index,), tuple(edits))):
            if part.baselines is not None:
                baselines = part.baselines[:, 0]
            changed[list(part.cells)] = part.values[:, :, 0]
        for index, baseline in enumerate(baselines.tolist()):
            yield _Line((baseline - changed[:, index]).float(), baseline)


def _labelled(text: _Text, targets: range, lines: Sequence[_Line], title: str) -> Labelled:
    n_tokens, words = text.row.n_tokens, text.words
    values = torch.stack([line.value[:n_tokens].cpu() for line in lines])
    before = torch.arange(n_tokens)[None, :] < torch.tensor(targets)[:, None]
    measures = torch.tensor([line.measure for line in lines], dtype=torch.float64)
    tensors = {
        "value": OnAxes(values.where(before, 0.0), ("target", "source")),
        "measure": OnAxes(measures, ("target",)),
    }
    if lines[0].delta is not None:
        deltas = torch.tensor([line.delta for line in lines], dtype=torch.float64)
        tensors["delta"] = OnAxes(deltas, ("target",))
    of_targets = Axis("target", targets, {"token": [words[target] for target in targets]})
    return Labelled(title, (of_targets, Axis("source", range(n_tokens), {"token": words[:n_tokens]})), tensors)
