"""The Gradients RPC: what it answers, what it refuses with which numbers, and that it leaves no work behind."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch

from support.servers.owners import BearerTokenFile
from support.servers.servers import running, tiny
from support.servers.stub import refusal, run_of, stub
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.differentiation import DIRECT, Differentiation, Edges, Path, SiteGradient
from transparent_llm.analysis.metrics import Metric, kl, loss, projection
from transparent_llm.errors import BusyError, InvalidRequestError, NotSupportedError, TooLargeError
from transparent_llm.interventions import (
    Intervention,
    attn_out,
    ffn_out,
    freeze,
    head,
    key,
    neurons,
    patch,
    pattern,
    residual_after_attn,
    residual_in,
    residual_out,
    scale,
    value,
    value_of,
    zero,
)
from transparent_llm.wire import gradients as wire_gradients
from transparent_llm.wire._gen import gradients_pb2, tensor_pb2
from transparent_llm_server.models.differentiation import graph
from transparent_llm_server.rpc import server_info

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
OTHER = [[11, 12, 13, 14, 15, 16], [17, 18, 19]]
SITES = (residual_in(0), residual_after_attn(1), residual_out(-1), attn_out(0), head(0), head(1, 2), neurons(0, [3, 5]))
FORMS = ("gradient", "times_activation", "times_difference", "norm")
ASKED = Differentiation(Metric(5), (SiteGradient(residual_in(0)), SiteGradient(pattern(1))))


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    with running() as server, grpc.insecure_channel(server.address) as channel:
        yield stub(channel)


def of_all_forms(source: Any, **more: Any) -> Differentiation:
    sites = (*SITES, pattern(0), pattern(1, 3), key(0), value(1, 1))
    each = [
        SiteGradient(site, form, source if form == "times_difference" else None)  # type: ignore[arg-type]
        for site in sites
        for form in FORMS
    ]
    return Differentiation(more.pop("metric", Metric((5, 6), (7, 7), pos=1)), tuple(each), **more)


def edits_of(source: Any) -> tuple[Intervention, ...]:
    """That take from another run, from the run of the same input, and from nothing."""
    return patch(head(0, 1), source), freeze(pattern(0)), scale(residual_after_attn(1), 1.5, rows=[1])


def test_remote_gradients_are_local_ones_and_nothing_is_stored() -> None:
    local, of_here = tiny().copy(), tiny().copy()
    local.run_tokens(ROWS)
    of_here.run_tokens(OTHER)
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        source = llm.copy()
        source.run_tokens(OTHER)
        before = llm.server_info().stored_run_bytes

        def asked(of: Any) -> list[Differentiation]:
            direction = value_of(residual_in(0), of, pos=0)
            return [
                of_all_forms(of),
                of_all_forms(of, metric=kl(of), rows=(1,), frozen=DIRECT),
                of_all_forms(of, metric=projection(residual_out(0), direction), frozen=("norm_scales",), rows=(1, 0)),
                of_all_forms(of, rows=(1, 0), edits=edits_of(of)),
                *(Differentiation(loss(), path=Path(baseline, 7)) for baseline in ("zero", 3, of)),
                *(Differentiation(loss(), path=Path(of, 7, at), edits=edits_of(of)) for at in (head(1), ffn_out(0))),
                *(Differentiation(loss(), (), (1, 0), edges=Edges(of, (1, 0), steps)) for steps in (0, 2)),
            ]

        for there, here in zip(asked(source), asked(of_here), strict=True):
            got, wanted = (
                wire_gradients.tensors_of(one.gradients(what)) for one, what in ((llm, there), (local, here))
            )
            assert len(got) == len(wanted) > 1
            assert all(map(torch.equal, got, wanted))
            assert any(tensor.any() for tensor in got[1:])
        assert llm.server_info().stored_run_bytes == before
        assert "gradients" in llm.server_info().features


def test_runs_that_the_server_lost_are_run_again() -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        source = llm.copy()
        source.run_tokens(OTHER)
        wanted = llm.gradients(of_all_forms(source, edits=edits_of(source)))
        llm.release()
        source.release()
        found = llm.gradients(of_all_forms(source, edits=edits_of(source)))
        assert all(map(torch.equal, found.sites, wanted.sites))


def test_a_stream_that_broke_begins_anew(service: Any) -> None:
    request = wire_gradients.to_wire(ASKED, run_of(service, ROWS), str)
    first = list(service.Gradients(request))
    assert [chunk.header.name for chunk in first] == ["metric", "residual_in(0)", "pattern(1)"]
    assert list(first[2].header.dims) == ["batch", "head", "query_pos", "key_pos"]
    request.options.resume_offset, request.options.etag = 20, first[0].header.etag
    again = list(service.Gradients(request))
    assert [chunk.data for chunk in again] == [chunk.data for chunk in first]
    assert again[0].header.etag != first[0].header.etag


def test_what_is_too_much_is_refused_with_numbers_before_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("it was computed")

    monkeypatch.setattr(graph.Graph, "passed", never)
    monkeypatch.setattr(graph.Graph, "measured", never)
    with running(max_gradient_bytes=1000) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(TooLargeError, match="the server allows 1000: ask for fewer rows") as raised:
            llm.gradients(ASKED)
        assert int(raised.value.metadata["needed"]) > 100_000
        edges = Differentiation(Metric(5), edges=Edges(llm))
        with pytest.raises(TooLargeError, match="the server allows 1000"):
            llm.gradients(edges)
    with running(max_sweep_positions=131) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(TooLargeError, match="compute 132 positions, the server does at most 131"):
            llm.gradients(Differentiation(Metric(5), path=Path(steps=10)))
    with running(max_read_bytes=3000) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(TooLargeError, match="the largest tensor is residual_in"):
            llm.gradients(ASKED)
    with running() as server, grpc.insecure_channel(server.address) as channel:
        service = stub(channel)
        request = wire_gradients.to_wire(ASKED, run_of(service, ROWS), str)
        request.sites.extend([request.sites[0]] * 4096)
        assert "at most 4096 sites, got 4098" in refusal(service.Gradients, request).details()
        request.sites.extend([gradients_pb2.GradientSite()] * 100_000)
        assert "far more items at once" in refusal(service.Gradients, request).details()


def test_positions_count_for_the_quota(tmp_path: pathlib.Path) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    with running(tokens_file=file.path, owner_positions_per_minute=30) as server:
        with RemoteTransparentLlm(server.address, token=file.bearer_tokens["alice"], timeout_s=2) as llm:
            llm.run_tokens(ROWS)
            llm.gradients(ASKED)
            with pytest.raises(BusyError, match="positions"):
                llm.gradients(ASKED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.ClearField("metric"), "a metric, which is absent"),
        (lambda r: setattr(r.metric, "kind", 0), "kind of a metric is absent"),
        (lambda r: r.ClearField("sites"), "give one of them"),
        (lambda r: setattr(r.path, "steps", 3), "baseline of a path is absent"),
        (lambda r: (setattr(r.path, "zero", True), setattr(r.path, "steps", 3)), "give one of them"),
        (lambda r: (setattr(r.path, "zero", True), setattr(r.path, "steps", 1001)), "1 to 1000 steps, got 1001"),
        (lambda r: setattr(r.sites[0], "form", 0), "form of a gradient is absent"),
        (lambda r: setattr(r.sites[0], "form", 3), "needs a source"),
        (lambda r: setattr(r.sites[0], "run_id", "x"), "has no source"),
        (lambda r: r.sites[0].source_rows.append(0), "has no source"),
        (lambda r: r.sites[0].ClearField("site"), "site of an edit is absent"),
        (lambda r: setattr(r.sites[0].site, "kind", 9), "there is no gradient by"),
        (lambda r: r.frozen.append(9), "a frozen part that this server does not know: 9"),
        (lambda r: r.frozen.extend([1, 1]), "names a part twice"),
        (lambda r: r.edits.add(), "of an edit is absent"),
        (lambda r: r.path.site.SetInParent(), "baseline of a path is absent"),
        (lambda r: setattr(r.edges, "steps", 1001), "0 to 1000 steps, got 1001"),
        (lambda r: r.rows.append(7), "row 7 is out of range"),
        (lambda r: r.rows.extend([1, 1]), "names one twice"),
        (lambda r: setattr(r.options, "dtype", tensor_pb2.DTYPE_F16), "must be absent"),
        (lambda r: r.options.slices.add(axis="pos"), "must be absent"),
        (lambda r: r.MergeFromString(b"\xfa\x01\x01x"), "a field that this server does not know"),
    ],
)
def test_what_is_absent_or_unknown_is_refused(change: Any, words: str, service: Any) -> None:
    request = wire_gradients.to_wire(ASKED, run_of(service, ROWS), str)
    change(request)
    error = refusal(service.Gradients, request)
    assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)
    assert words in error.details()


def test_a_call_that_is_left_ends_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of a thousand steps: no more of it is computed than what was under way."""
    passes, begun, goes_on = [], threading.Event(), threading.Event()
    passed = graph.Graph.passed

    def held(self: Any, *given: Any) -> Any:
        passes.append(given)
        begun.set()
        assert goes_on.wait(20)
        return passed(self, *given)

    monkeypatch.setattr(graph.Graph, "passed", held)
    with running() as server, grpc.insecure_channel(server.address) as channel:
        service = stub(channel)
        asked = Differentiation(Metric(5), path=Path(steps=1000))
        call = service.Gradients(wire_gradients.to_wire(asked, run_of(service, ROWS), str))
        assert begun.wait(20)
        call.cancel()
        goes_on.set()
        assert run_of(service, ROWS)  # the model is free again
        assert len(passes) <= 2


def test_a_client_keeps_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(InvalidRequestError, match="an object of the same server"):
            llm.gradients(of_all_forms(tiny()))
        llm.run_tokens(ROWS, edits=[zero(head(0, 0))])
        with pytest.raises(InvalidRequestError, match="edited is not differentiated"):
            llm.gradients(ASKED)
    features = tuple(each for each in server_info.FEATURES if each != "gradients")
    monkeypatch.setattr(server_info, "FEATURES", features)
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(NotSupportedError, match="knows no gradients"):
            llm.gradients(ASKED)
