"""The Sweep RPC: what it answers, what it refuses with which numbers, whom it waits for, and when it stops."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest
import torch

from support.servers.servers import running, tiny
from support.servers.stub import refusal, run_of, stub
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.metrics import Metric, kl, loss, projection
from transparent_llm.analysis.sweep_cells import Cell, Sweep
from transparent_llm.analysis.sweeps import ablation_sweep, ablation_sweep_by_part, patch_sweep
from transparent_llm.errors import InvalidRequestError, NotSupportedError, TooLargeError
from transparent_llm.interventions import head, patch, residual_in, value_of, zero
from transparent_llm.wire import sweeps as wire_sweeps
from transparent_llm.wire._gen import service_pb2, sweeps_pb2
from transparent_llm_server.models.sweeping import swept_run
from transparent_llm_server.rpc import server_info

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
CELLS = tuple(Cell(layer=layer, head=number) for layer in range(2) for number in range(4))
SWEEP = Sweep((zero(head(0, 0)),), CELLS, (Metric(5), loss()))


def collected(llm: Any, sweep: Sweep) -> torch.Tensor:
    """Values [cell metric row]; each cell comes once."""
    found: dict[int, torch.Tensor] = {}
    for part in llm.sweep(sweep):
        assert found.keys().isdisjoint(part.cells)
        found |= dict(zip(part.cells, part.values, strict=True))
    return torch.stack([found[n] for n in range(len(sweep.cells))])


def test_a_remote_sweep_is_a_local_one_and_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swept_run, "_POSITIONS_AT_ONCE", {"cpu": 24})
    local = tiny()
    local.run_tokens(ROWS)
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        source, of_here = llm.copy(), local.copy()
        source.run_tokens([[11, 12, 13, 14, 15, 16], [17, 18, 19]])
        of_here.run_tokens([[11, 12, 13, 14, 15, 16], [17, 18, 19]])
        before = llm.server_info().stored_runs

        def wanted(of: Any) -> Sweep:
            direction = value_of(residual_in(0), of, pos=0)
            metrics = (Metric((5, 6), (7, 7), pos=1), kl(of), projection(residual_in(1), direction))
            return Sweep((patch(head(0, 0), of),), CELLS, metrics)

        assert torch.equal(collected(llm, wanted(source)), collected(local, wanted(of_here)))
        assert torch.equal(collected(llm, SWEEP), collected(local, SWEEP))
        assert llm.server_info().stored_runs == before
        assert llm.plan_sweep(SWEEP) == (8 * 12, 4 * 2**20, 2)
        assert "sweep" in llm.server_info().features


def test_runs_that_the_server_lost_are_run_again() -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        source = llm.copy()
        source.run_tokens(ROWS[::-1])
        wanted = patch_sweep(source, llm, "head", Metric(5), clean_row=1)["value"]
        llm.release()
        source.release()
        assert torch.equal(patch_sweep(source, llm, "head", Metric(5), clean_row=1)["value"], wanted)


def test_many_cells_are_asked_for_in_several_calls() -> None:
    with running(max_sweep_positions=24) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        local = tiny()
        local.run_tokens(ROWS)
        assert (collected(llm, SWEEP) - collected(local, SWEEP)).abs().max() <= 1e-4


def test_parts_come_as_they_are_done_and_a_loop_that_is_left_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swept_run, "_POSITIONS_AT_ONCE", {"cpu": 1})
    served, passes, goes_on = tiny(), [], threading.Event()
    measured = swept_run.SweptRun.measured

    def held(self: Any, cells: Any) -> Any:
        passes.append(cells)
        if len(passes) > 1:
            assert goes_on.wait(20)
        return measured(self, cells)

    monkeypatch.setattr(swept_run.SweptRun, "measured", held)
    with running(serving={"tiny": served}) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        growing = ablation_sweep_by_part(llm, "head", Metric(5))
        first = next(growing)
        assert int(first["value"].isfinite().sum()) == 1
        growing.close()
        goes_on.set()
        assert llm.logits().isfinite().all()  # the model is free again
        assert len(passes) <= 3
        grown = [int(each["value"].isfinite().sum()) for each in ablation_sweep_by_part(llm, "head", Metric(5))]
        assert grown == list(range(1, len(CELLS) + 1))


def test_progress_is_told() -> None:
    seen: list[tuple[int, int | None]] = []
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        found = ablation_sweep(llm, "residual_in", Metric(5), units=[0, 2], progress=lambda n, of: seen.append((n, of)))
    assert found["value"].shape == (2, 2)
    assert seen[-1] == (4, 4)


def test_what_is_too_much_is_refused_with_numbers() -> None:
    with running(max_sweep_positions=95) as server, grpc.insecure_channel(server.address) as channel:
        service = stub(channel)
        run_id = run_of(service, ROWS)
        request = wire_sweeps.to_wire(SWEEP, range(8), run_id, str)
        error = refusal(service.Sweep, request)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "this sweep computes 96 positions for 8 cells, the server does at most 95" in error.details()
        del request.cells[:]
        request.cells.extend([sweeps_pb2.SweepCell()] * (wire_sweeps.MOST_CELLS + 1))
        assert "at most 16384 cells, got 16385" in refusal(service.Sweep, request).details()
        request.cells.extend([sweeps_pb2.SweepCell()] * 100_000)
        assert "far more items at once" in refusal(service.Sweep, request).details()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.metrics[0].ClearField("pos"), "needs a pos"),
        (lambda r: setattr(r.metrics[1], "pos", 0), "has no pos"),
        (lambda r: setattr(r.metrics[0], "kind", 0), "kind of a metric is absent"),
        (lambda r: setattr(r.metrics[0], "run_id", "x"), "has no run_id"),
        (lambda r: r.metrics[0].ClearField("token_ids"), "needs a token"),
        (lambda r: r.ClearField("templates"), "has no templates"),
        (lambda r: r.ClearField("cells"), "has no cells"),
        (lambda r: r.ClearField("metrics"), "has no metrics"),
        (lambda r: r.MergeFromString(b"\xfa\x01\x01x"), "a field that this server does not know"),
        (lambda r: r.cells[0].MergeFromString(b"\xfa\x01\x01x"), "a field that this server does not know"),
        (lambda r: r.templates[0].ClearField("all_rows"), "says nothing of rows"),
        (lambda r: r.rows.append(7), "row 7 is out of range"),
    ],
)
def test_what_is_absent_or_unknown_is_refused(change: Any, words: str) -> None:
    with running() as server, grpc.insecure_channel(server.address) as channel:
        service = stub(channel)
        request = wire_sweeps.to_wire(SWEEP, range(8), run_of(service, ROWS), str)
        change(request)
        error = refusal(service.Sweep, request)
        assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)
        assert words in error.details()


def test_a_plan_computes_nothing_and_is_of_one_run() -> None:
    with running() as server, grpc.insecure_channel(server.address) as channel:
        service = stub(channel)
        request = service_pb2.PlanRequest(run_id=run_of(service, ROWS))
        request.sweep.CopyFrom(wire_sweeps.to_wire(SWEEP, range(8), "", str))
        request.items.add().logits.SetInParent()
        answer = service.Plan(request)
        assert answer.sweep.positions == 96
        assert answer.tensors[0].name == "logits"
        request.sweep.run_id = "another"
        with pytest.raises(grpc.RpcError, match="another run"):
            service.Plan(request)


def test_a_client_keeps_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(InvalidRequestError, match="an object of the same server"):
            list(llm.sweep(Sweep((patch(head(0, 0), tiny()),), CELLS, (Metric(5),))))
        llm.run_tokens(ROWS, edits=[zero(head(0, 0))])
        with pytest.raises(InvalidRequestError, match="is no base of a sweep"):
            list(llm.sweep(SWEEP))
        with pytest.raises(TooLargeError):
            list(llm.sweep(Sweep((zero(head(0, 0)),) * 513, CELLS, (Metric(5),))))
    features = tuple(each for each in server_info.FEATURES if each != "sweep")
    monkeypatch.setattr(server_info, "FEATURES", features)
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(NotSupportedError, match="knows no sweep"):
            list(llm.sweep(SWEEP))
