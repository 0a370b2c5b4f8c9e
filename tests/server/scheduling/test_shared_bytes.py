"""Runs that share memory: each storage counts once, as long as somebody holds it, whoever goes first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from support.servers.polling import wait_until
from support.servers.servers import running, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import BusyError, DeadlineError
from transparent_llm.interventions import (
    Intervention,
    attn_out,
    ffn_out,
    head,
    neurons,
    patch,
    pattern,
    residual_after_attn,
    residual_in,
    residual_out,
    zero,
)
from transparent_llm_server.app import Server
from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm
from transparent_llm_server.scheduling.run_store import RunStore

SIZES = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
MOST = 12
ROWS = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7]]
LAST = 1
EDITS: dict[str, Callable[[], Intervention]] = {
    "residual_in": lambda: zero(residual_in(LAST), positions=[2], rows=[0]),
    "pattern": lambda: zero(pattern(LAST, 1), positions=[2], rows=[0]),
    "head": lambda: zero(head(LAST, 1), positions=[2], rows=[0]),
    "attn_out": lambda: zero(attn_out(LAST), positions=[2], rows=[0]),
    "residual_after_attn": lambda: zero(residual_after_attn(LAST), positions=[2], rows=[0]),
    "neurons": lambda: zero(neurons(LAST), positions=[2], rows=[0]),
    "ffn_out": lambda: zero(ffn_out(LAST), positions=[2], rows=[0]),
    "residual_out": lambda: zero(residual_out(LAST), positions=[2], rows=[0]),
}


@dataclass(eq=False)
class Run:
    """Of some storages."""

    storages: Mapping[Hashable, int]

    @property
    def nbytes(self) -> int:
        return sum(self.storages.values())


SOME = st.sets(st.sampled_from(sorted(SIZES)), min_size=1).filter(lambda s: sum(SIZES[each] for each in s) <= MOST)


class SharedBytes(RuleBasedStateMachine):
    """The store and holds on it, beside sets of what should be counted."""

    def __init__(self) -> None:
        super().__init__()
        self.store: RunStore[Run] = RunStore(MOST, 60.0, lambda: 0.0)
        self.holds: list[tuple[Run, Callable[[], None]]] = []

    @rule(run_id=st.sampled_from("12345"), storages=SOME)
    def put(self, run_id: str, storages: set[str]) -> None:
        run = Run({each: SIZES[each] for each in storages})
        try:
            self.store.put(run_id, run)
        except BusyError:
            held = {each for other, _ in self.holds for each in other.storages}
            assert sum(SIZES[each] for each in held | storages) > MOST  # no run is dropped that could have stayed
        else:
            assert self.store.find(run_id) is run

    @rule(storages=SOME)
    def hold(self, storages: set[str]) -> None:
        run = Run({each: SIZES[each] for each in storages})
        try:
            self.holds.append((run, self.store.hold([run], "")))
        except BusyError:
            held = {each for other, _ in self.holds for each in other.storages}
            assert sum(SIZES[each] for each in held | storages) > MOST

    @precondition(lambda self: self.holds)
    @rule(index=st.integers(0, 10))
    def let_go(self, index: int) -> None:
        _, give_back = self.holds.pop(index % len(self.holds))
        give_back()

    @rule(run_id=st.sampled_from("12345"))
    def release(self, run_id: str) -> None:
        self.store.release(run_id)

    @invariant()
    def each_counts_once(self) -> None:
        runs = [stored.run for stored in self.store.stored()] + [run for run, _ in self.holds]
        there = {storage for run in runs for storage in run.storages}
        assert self.store.nbytes == self.store.usage("")[1] == sum(SIZES[str(each)] for each in there) <= MOST


TestSharedBytes = SharedBytes.TestCase
TestSharedBytes.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as found:
        yield found


def unique_bytes(server: Server) -> int:
    """Of all storages that stored runs hold, by looking at their tensors."""
    found = {}
    for stored in server._runs.stored():
        assert isinstance(stored.run.llm, TransformerLensTransparentLlm)
        for tensor in stored.run.llm.values().capture._tensors():
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(found.values())


@pytest.mark.parametrize("edited_first", [False, True])
@pytest.mark.parametrize("name", EDITS)
def test_what_an_edit_leaves_as_it_is_lies_in_memory_once(server: Server, name: str, edited_first: bool) -> None:
    with RemoteTransparentLlm(server.address, cache_bytes=0) as llm:
        plain, twin, here = llm.copy(), tiny().copy(), tiny().copy()
        edit = EDITS[name]()
        twin.run_tokens(ROWS, edits=[edit])
        here.run_tokens(ROWS)
        for one, edits in [(plain, []), (llm, [edit])][:: -1 if edited_first else 1]:
            one.run_tokens(ROWS, edits=edits)
        whole = sum(stored.nbytes for stored in server._runs.stored())
        assert server._runs.nbytes == unique_bytes(server)
        below = sum(part.nbytes for part in _of_layer(here, 0))
        assert whole - server._runs.nbytes >= below > 0
        for one, other in ((llm, twin), (plain, here)):
            for layer in (0, 1):
                for read in ("residual_in", "residual_after_attn", "ffn_out", "residual_out"):
                    assert torch.equal(getattr(one, read)(layer), getattr(other, read)(layer))
                assert torch.equal(one.attention_matrix(0, layer, 1), other.attention_matrix(0, layer, 1))
                assert torch.equal(one.attention_output(0, layer, 2, 1), other.attention_output(0, layer, 2, 1))
                assert torch.equal(one.neuron_activations(0, layer, 2), other.neuron_activations(0, layer, 2))
            assert torch.equal(one.logits(), other.logits())
        first, second = (llm, plain) if edited_first else (plain, llm)
        first.release()
        assert server._runs.nbytes == unique_bytes(server)
        assert torch.equal(second.logits(), (here if edited_first else twin).logits())
        second.release()
        assert server._runs.nbytes == 0


def _of_layer(llm: TransformerLensTransparentLlm, layer: int) -> list[torch.Tensor]:
    captured = llm.values().capture.layers[layer]
    tensors = (captured.residual_in, captured.attn_out, captured.pattern, captured.neurons)
    return [tensor for tensor in tensors if tensor is not None]


def test_what_waiting_edits_take_from_counts_until_they_are_done() -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm, ThreadPoolExecutor(1) as threads:
        source = llm.copy()
        source.run_tokens(ROWS)
        nbytes = server._runs.nbytes
        with server._engine.paused():
            waiting = threads.submit(llm.run_tokens, ROWS, edits=[patch(residual_in(1), source)])
            wait_until(lambda: server._engine.queued_runs == 1)
            source.release()
            assert len(server._runs) == 0
            assert server._runs.nbytes == nbytes
        waiting.result()
        llm.release()
        assert server._runs.nbytes == 0


def test_edits_whose_caller_left_hold_nothing() -> None:
    with running() as server, RemoteTransparentLlm(server.address, timeout_s=1.0, reconnect_s=0.0) as llm:
        source = llm.copy()
        source.run_tokens(ROWS)
        with server._engine.paused():
            with pytest.raises(DeadlineError):
                llm.run_tokens(ROWS, edits=[patch(residual_in(1), source)])
            source.release()
            wait_until(lambda: server._runs.nbytes == 0)


def test_where_waiting_edits_leave_no_room_a_run_is_told_to_come_again() -> None:
    probe = tiny().copy()
    probe.run_tokens(ROWS)
    nbytes = probe.values().nbytes
    with running(run_store_bytes=int(1.5 * nbytes)) as server:
        with RemoteTransparentLlm(server.address) as llm, ThreadPoolExecutor(1) as threads:
            source = llm.copy()
            source.run_tokens(ROWS)
            with server._engine.paused():
                waiting = threads.submit(llm.run_tokens, ROWS, edits=[patch(residual_in(1), source)])
                wait_until(lambda: server._engine.queued_runs == 1)
                held = server._runs.nbytes
                other: Any = Run({"of its own": nbytes})
                with pytest.raises(BusyError, match="runs that are waiting take from stored ones"):
                    server._runs.put("another", other)
                assert server._runs.nbytes == held
            waiting.result()
            assert torch.equal(llm.residual_in(1), source.residual_in(1))
