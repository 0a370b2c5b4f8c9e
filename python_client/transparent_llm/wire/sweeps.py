"""Sweeps on the wire."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from google.protobuf.message import DecodeError

from transparent_llm.analysis.metrics import OF_TOKENS, Measure, Metric, names_of
from transparent_llm.analysis.sweep_cells import Cell, Sweep, SweepPart, SweepPlan
from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm.wire import interventions, sites
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire._gen import sweeps_pb2 as pb
from transparent_llm.wire.interventions import Named, Sources, require_known
from transparent_llm.wire.protocol_error import ProtocolError

MOST_CELLS = 16_384
"""Of one request; a client that wants more asks several times."""

_KINDS: dict[Measure, int] = {
    "logit": pb.METRIC_KIND_LOGIT,
    "logprob": pb.METRIC_KIND_LOGPROB,
    "prob": pb.METRIC_KIND_PROB,
    "loss": pb.METRIC_KIND_LOSS,
    "kl": pb.METRIC_KIND_KL,
    "entropy": pb.METRIC_KIND_ENTROPY,
    "projection": pb.METRIC_KIND_PROJECTION,
}
_MEASURES = {number: measure for measure, number in _KINDS.items()}


def to_wire(sweep: Sweep, cells: Sequence[int], run_id: str, run_id_of: Named) -> pb.SweepRequest:
    """A request for some of a sweep's cells; numbers of its answer are places in this list.

    Raises:
        InvalidRequestError: a vector of a type that does not travel.
    """
    request = pb.SweepRequest(run_id=run_id, rows=sweep.rows)
    request.edits.extend(interventions.to_wire(sweep.edits, run_id_of))
    request.templates.extend(interventions.to_wire(sweep.templates, run_id_of))
    request.metrics.extend(metric_to_wire(metric, run_id_of) for metric in sweep.metrics)
    for number in cells:
        cell = sweep.cells[number]
        request.cells.add(
            layer=cell.layer,
            head=cell.head,
            neurons=cell.neurons or (),
            positions=cell.positions or (),
            source_row=cell.source_row,
        )
    return request


def from_wire(request: pb.SweepRequest, sources: Sources) -> Sweep:
    """The sweep that a request asks for.

    Raises:
        InvalidRequestError: something is absent, unknown or makes no sense.
        TooLargeError: too many cells, edits or metrics.
        NotFoundError: a run that is not there.
    """
    if len(request.cells) > MOST_CELLS:
        raise too_many_cells(len(request.cells))
    require_known(request)
    templates, edits = (interventions.from_wire(part, sources) for part in (request.templates, request.edits))
    cells = tuple(map(_cell_from_wire, request.cells))
    metrics = tuple(metric_from_wire(metric, sources) for metric in request.metrics)
    return Sweep(templates, cells, metrics, tuple(request.rows), edits)


def too_many_cells(count: int | str) -> TooLargeError:
    """The error for more than one sweep has."""
    return TooLargeError(
        f"a sweep has at most {MOST_CELLS} cells, got {count}; ask for them in several calls",
        metadata={"needed": str(count), "allowed": str(MOST_CELLS)},
    )


def part_to_wire(part: SweepPart) -> bytes:
    """One message of an answer, serialized."""
    baselines = [] if part.baselines is None else part.baselines.flatten().tolist()
    answer = pb.SweepResponse(baselines=baselines, cells=part.cells, values=part.values.flatten().tolist())
    data: bytes = answer.SerializeToString()
    return data


def part_from_wire(data: bytes, wanted: Collection[int], n_metrics: int, n_rows: int, *, is_first: bool) -> SweepPart:
    """One message of an answer.

    Args:
        data: As it came.
        wanted: Numbers of cells that have not come yet.
        n_metrics: Of the sweep.
        n_rows: That are swept.
        is_first: Of the answer, which has the baselines.

    Raises:
        ProtocolError: it is none, or of another sweep.
    """
    try:
        message = pb.SweepResponse.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"its answer cannot be parsed: {error}") from None
    cells, of_cell = tuple(message.cells), n_metrics * n_rows
    if not set(cells) <= set(wanted) or len(set(cells)) != len(cells):
        raise ProtocolError("cells that were not asked for, or twice")
    if len(message.values) != len(cells) * of_cell or len(message.baselines) != (of_cell if is_first else 0):
        raise ProtocolError(
            f"{len(message.values)} values and {len(message.baselines)} baselines for {len(cells)} cells of "
            f"{n_metrics} metrics and {n_rows} rows"
        )
    values = torch.tensor(message.values, dtype=torch.float64, device="cpu").reshape(len(cells), n_metrics, n_rows)
    if not is_first:
        return SweepPart(None, cells, values)
    baselines = torch.tensor(message.baselines, dtype=torch.float64, device="cpu").reshape(n_metrics, n_rows)
    return SweepPart(baselines, cells, values)


def plan_to_wire(plan: SweepPlan) -> pb.SweepPlan:
    """What a sweep would take, as a message."""
    return pb.SweepPlan(**plan._asdict())


def plan_request(request: pb.SweepRequest) -> service_pb2.PlanRequest:
    """Asks what a sweep would take."""
    return service_pb2.PlanRequest(run_id=request.run_id, sweep=request)


def plan_from_wire(data: bytes) -> SweepPlan:
    """The answer to that.

    Raises:
        ProtocolError: it is none.
    """
    try:
        answer = service_pb2.PlanResponse.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"its answer cannot be parsed: {error}") from None
    if not answer.HasField("sweep"):
        raise ProtocolError("a plan without the sweep that was asked for")
    return SweepPlan(answer.sweep.positions, answer.sweep.max_positions, answer.sweep.cells_at_once)


def _cell_from_wire(message: pb.SweepCell) -> Cell:
    def given(name: str) -> int | None:
        return getattr(message, name) if message.HasField(name) else None

    return Cell(
        given("layer"),
        given("head"),
        tuple(message.neurons) or None,
        tuple(message.positions) or None,
        given("source_row"),
    )


def metric_to_wire(metric: Metric, run_id_of: Named) -> pb.SweepMetric:
    """A metric as a message."""
    message = pb.SweepMetric(kind=_KINDS[metric.measure])  # type: ignore[arg-type]  # a number of the enum
    if metric.measure in OF_TOKENS:
        message.token_ids.extend(names_of(metric.token))  # type: ignore[arg-type]  # ids, by now
        message.minus_token_ids.extend(names_of(metric.minus))  # type: ignore[arg-type]  # the same
    if metric.measure != "loss":
        message.pos = metric.pos
    if metric.run is not None:
        message.run_id = run_id_of(metric.run)
    if metric.site is not None and metric.direction is not None:
        message.site.CopyFrom(sites.site_to_wire(metric.site))
        message.direction.CopyFrom(interventions.vector_to_wire(metric.direction, run_id_of))
    return message


def metric_from_wire(message: pb.SweepMetric, sources: Sources) -> Metric:
    """A metric out of a request.

    Raises:
        InvalidRequestError: something is absent, unknown or makes no sense.
        NotFoundError: a run that is not there.
    """
    measure = _MEASURES.get(message.kind)
    if measure is None:
        raise InvalidRequestError("the kind of a metric is absent, or one that this server does not know")
    if message.HasField("pos") == (measure == "loss"):
        raise InvalidRequestError(f"a metric of measure {measure!r} {'has no' if measure == 'loss' else 'needs a'} pos")
    _require_uses(message, measure)
    return Metric(
        token=tuple(message.token_ids) or None,
        minus=tuple(message.minus_token_ids) or None,
        pos=message.pos if message.HasField("pos") else -1,
        measure=measure,
        run=sources.run_of(message.run_id) if message.run_id else None,
        site=sites.site_from_wire(message.site) if message.HasField("site") else None,
        direction=interventions.vector_from_wire(message.direction, sources) if message.HasField("direction") else None,
    )


def _require_uses(message: pb.SweepMetric, measure: Measure) -> None:
    """Before a run is looked for in vain."""
    if message.run_id and measure != "kl":
        raise InvalidRequestError(f"a metric of measure {measure!r} has no run_id")
