"""A run that is differentiated: checked and costed before anything is computed, and the passes that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from transparent_llm.analysis.differentiation import Differentiation, Gradients
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.interventions import Intervention
from transparent_llm.interventions.site import SiteKind
from transparent_llm.runtime.indexing import checked_index
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.differentiation.cost import graph_bytes
from transparent_llm_server.models.differentiation.edges import AttributedEdges
from transparent_llm_server.models.differentiation.forms import Told
from transparent_llm_server.models.differentiation.graph import Graph, Passed, Rows
from transparent_llm_server.models.differentiation.integrated import IntegratedPath
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled
from transparent_llm_server.models.forward.neurons import ExpertNeurons
from transparent_llm_server.models.interventions.edit import Edit
from transparent_llm_server.models.interventions.multiplied import require_few_runs
from transparent_llm_server.models.interventions.rewriting import checked_edit
from transparent_llm_server.models.interventions.selection import require_few_places
from transparent_llm_server.models.interventions.sources import Sources
from transparent_llm_server.models.sweeping.measures import Measures

_POSITIONS_AT_ONCE = {"cpu": 512, "cuda": 16_384}
"""Of the copies of one pass along a path."""


class DifferentiatedRun:
    """Checked; nothing is computed before `steps` are made, after which there is a `result`.

    Raises:
        InvalidRequestError: the run has edits, its rows cannot share a pass, or something makes no sense.
        IndexOutOfRangeError: a layer, head, neuron, row, position or token that is not there.
        NotSupportedError: the model has nothing at a site, or its weights have no gradients to pass on.
    """

    def __init__(self, model: BridgedModel, values: RunValues, asked: Differentiation, quantization: str) -> None:
        _require_plain(model, quantization)
        if values.effects:
            raise InvalidRequestError(
                "a run that was edited is not differentiated: ask for the gradients of the run without edits, and give "
                "them to the gradients"
            )
        self._model, self._asked = model, asked
        self._rows = _rows_of(model, values, asked.rows)
        sources = Sources(model)
        lengths = self._rows.mask.sum(dim=1).tolist()
        token_ids = [row[:length].tolist() for row, length in zip(self._rows.tokens, lengths, strict=True)]
        self._measures = Measures(model, (asked.metric,), token_ids, values, self._rows.indices, sources)
        edits = _edits_of(model, self._rows, asked.edits, sources)
        self._graph = Graph(model, self._rows, self._measures, asked.frozen, edits)
        self._told = [Told.of(model, self._rows, each, sources) for each in asked.sites]
        self._path = None if asked.path is None else IntegratedPath(self._graph, asked.path, sources)
        self._edges = None if asked.edges is None else AttributedEdges(self._graph, asked.edges, sources)
        self._result: Gradients | None = None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the tensors of the answer, in the order in which they are sent."""
        n_rows = len(self._rows.indices)
        if self._path is not None:
            return [(n_rows,)] * 3 + [self._path.shape]
        if self._edges is not None:
            return [(n_rows,), *self._edges.shapes]
        return [(n_rows,), *(told.shape for told in self._told)]

    @property
    def graph_bytes(self) -> int:
        """What the graph of a pass takes at the most."""
        n_rows, n_pos = self._rows.tokens.shape
        edited = [edit.site for edit in self._graph.edits]
        return graph_bytes(self._model, self._start, n_rows, n_pos, self._measures.n_vectors, edited)

    @property
    def _start(self) -> int:
        """The layer that the graph begins with."""
        of_sites = [told.passing.layer for told in self._told]
        return min(of_sites if self._path is None else [self._path.passing.layer], default=0)

    @property
    def nbytes(self) -> int:
        """That, and the answer, which is held until it is sent."""
        numbers = sum(math.prod(shape) for shape in self.shapes)
        held = 0 if self._edges is None else self._edges.nbytes
        return self.graph_bytes + held + numbers * torch.float32.itemsize

    def steps(self, most_bytes: int | None = None) -> Iterator[tuple[int, Callable[[], None]]]:
        """What is to be done one after the other, and how many positions each computes; a graph has no more bytes than
        these, if one pass has not."""
        n_positions = self._rows.tokens.numel()
        if self._edges is not None:
            yield from ((n_positions, step) for step in self._edges.steps())
            return
        if self._path is None:
            yield n_positions, self._differentiate
            return
        positions = _POSITIONS_AT_ONCE.get(self._model.device.type, _POSITIONS_AT_ONCE["cpu"])
        at_once = max(1, positions // n_positions)
        if most_bytes is not None:
            at_once = max(1, min(at_once, most_bytes // max(1, self.graph_bytes)))
        yield n_positions, self._path.begin
        for nodes in self._path.parts(at_once):
            yield len(nodes) * n_positions, partial(self._path.add, nodes)

    def result(self) -> Gradients:
        """After all steps."""
        if self._edges is not None:
            return self._edges.result()
        found = self._result if self._path is None else self._path.result()
        assert found is not None  # the steps were made
        return found

    def _differentiate(self) -> None:
        passed = self._graph.passed({told.passing for told in self._told}, self._start)
        self._result = Gradients(passed.metric[0], tuple(_answer(told, passed) for told in self._told))


def _answer(told: Told, passed: Passed) -> torch.Tensor:
    raise_if_cancelled()
    return told.answer(passed)


def _rows_of(model: BridgedModel, values: RunValues, asked: Sequence[int]) -> Rows:
    capture = values.capture
    lengths: list[int] = capture.mask.sum(dim=1).tolist()
    rows = tuple(checked_index("row", row, len(lengths)) for row in asked) or tuple(range(len(lengths)))
    if len(set(rows)) != len(rows):
        raise InvalidRequestError("rows names one twice")
    of_rows = [lengths[row] for row in rows]
    if len(model.regimes.groups(of_rows)) > 1:
        raise InvalidRequestError(
            f"rows of {sorted(set(of_rows))} tokens have passes of their own in this model: ask for them one by one"
        )
    n_pos = max(of_rows)
    return Rows(values, rows, capture.tokens[list(rows), :n_pos], capture.mask[list(rows), :n_pos])


def _edits_of(model: BridgedModel, rows: Rows, edits: Sequence[Intervention], sources: Sources) -> list[Edit]:
    """Of these rows, in their order."""
    capture = rows.values.capture
    lengths: list[int] = capture.mask.sum(dim=1).tolist()
    require_few_places(edits, lengths)
    require_few_runs(edits)
    made = [checked_edit(model, edit, lengths, sources) for edit in edits]
    for edit in made:
        neurons = model.layers[edit.site.layer].neurons
        if edit.site.kind is SiteKind.NEURONS and isinstance(neurons, ExpertNeurons):
            raise NotSupportedError(
                f"a run with {edit.edit} is not differentiated: neurons of experts pass as no tensor; edit ffn_out"
            )
    n_pos = rows.tokens.shape[1]
    return [edit.within(rows.indices, n_pos, capture.tokens.shape[1]) for edit in made]


def _require_plain(model: BridgedModel, quantization: str) -> None:
    if quantization:
        raise NotSupportedError(
            f"this model is quantised ({quantization}): gradients through its weights are not exact; load it without"
        )
    if model.materializes:
        raise NotSupportedError(
            "weights of this model are offloaded, and gone when a gradient comes back to them: load it into memory"
        )
    if model.engine != "taps":
        raise NotSupportedError("this model runs through TransformerLens' bridge, where nothing can be differentiated")
