"""What a read would bring is known before it is sent, and what is too large is not sent."""

from __future__ import annotations

import pytest
import torch

from support.servers.servers import Watcher, running, served, tiny
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.client.plan import PlannedRead
from transparent_llm.wire.fetch import FETCHED_METHODS
from transparent_llm.wire.methods import METHODS

ROWS = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10]]
METHODS_OF_A_RUN = sorted(name for name in FETCHED_METHODS if METHODS[name].of_class)
"""Analyses are planned and limited as values of several tensors: see contract/test_analyses.py."""


@pytest.mark.parametrize("name", METHODS_OF_A_RUN)
def test_a_plan_is_what_the_read_brings(name: str) -> None:
    indices = (0,) * len(METHODS[name].arguments)
    with served() as llm:
        llm.run_tokens(ROWS)
        (planned,) = llm.plan([(name, *indices)])
        value = getattr(llm, name)(*indices)
    assert planned.name == name
    assert (planned.shape, planned.dtype, planned.nbytes) == (tuple(value.shape), value.dtype, value.nbytes)
    assert planned.dims == METHODS[name].dims
    assert 0 < planned.transfer_bytes <= planned.nbytes


def test_nothing_is_read_for_it() -> None:
    watcher = Watcher()
    with served(watcher) as llm:
        llm.run_tokens(ROWS)
        llm.plan([("decomposed_attn", 0, 1), "logits"])
    assert watcher.names == ["Run", "ServerInfo", "Plan"]


def test_factors_are_less_than_their_product() -> None:
    with served() as llm:
        llm.run_tokens([list(range(1, 33))])
        (planned,) = llm.plan([("decomposed_attn", 0, 1)])
    n_heads, d_model = tiny().model_info().n_heads, tiny().model_info().d_model
    assert planned.nbytes == 32 * 32 * n_heads * d_model * 4
    assert planned.transfer_bytes == (32 * 32 * n_heads + 32 * n_heads * d_model) * 4


def test_a_plan_knows_the_block_that_it_is_made_in() -> None:
    with served() as llm:
        llm.run_tokens(ROWS)
        with llm.reading(pos=slice(-1, None), dtype=torch.bfloat16):
            (planned,) = llm.plan([("residual_out", 1)])
    d_model = tiny().model_info().d_model
    expected = PlannedRead(
        "residual_out", (2, 1, d_model), ("batch", "pos", "d_model"), torch.bfloat16, 4 * d_model, 4 * d_model
    )
    assert planned == expected


@pytest.mark.timeout(120)
def test_more_reads_than_one_message_may_ask_for_are_asked_for_in_several() -> None:
    watcher = Watcher()
    reads = [("attention_output", 0, 1, pos % 7, None) for pos in range(5000)]
    with served(watcher) as llm:
        llm.run_tokens(ROWS)
        planned = llm.plan(reads)
    assert len(planned) == 5000
    assert len(set(planned)) == 1
    assert watcher.names.count("Plan") == 3


def test_a_plan_of_nothing_is_refused() -> None:
    with served() as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(errors.InvalidRequestError, match="Plan needs at least one item"):
            llm.plan([])


def test_a_plan_of_a_lost_run_runs_it_again() -> None:
    watcher = Watcher()
    with served(watcher) as llm:
        llm.run_tokens(ROWS)
        llm.release()
        assert llm.plan(["logits"])[0].nbytes == llm.logits().nbytes
    assert watcher.names.count("Run") == 2


def test_a_plan_of_what_is_not_there_is_refused() -> None:
    with served() as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(errors.IndexOutOfRangeError):
            llm.plan([("residual_in", 99)])
        with pytest.raises(errors.InvalidRequestError, match="cannot be fetched"):
            llm.plan([("neuron_output", 0, 0)])


# max_bytes


@pytest.mark.parametrize("name", sorted(set(METHODS_OF_A_RUN) - {"tokens"}))  # those come with the run
def test_max_bytes_refuses_what_is_larger_and_nothing_else(name: str) -> None:
    indices = (0,) * len(METHODS[name].arguments)
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        whole = getattr(llm, name)(*indices)
        with RemoteTransparentLlm(server.address, max_bytes=whole.nbytes) as just:
            just.run_tokens(ROWS)
            assert torch.equal(getattr(just, name)(*indices), whole)
        with RemoteTransparentLlm(server.address, max_bytes=whole.nbytes - 1) as narrow:
            narrow.run_tokens(ROWS)
            with pytest.raises(errors.TooLargeError, match=name) as refused:
                getattr(narrow, name)(*indices)
            with pytest.raises(errors.TooLargeError):
                narrow.fetch([(name, *indices)])
            narrow.batch_size()
    needed = refused.value.metadata["needed"]
    assert refused.value.metadata["allowed"] == str(whole.nbytes - 1)
    assert int(needed) == whole.nbytes


def test_nothing_of_it_is_transferred() -> None:
    watcher = Watcher(hold_after=1)
    with running(watcher, chunk_bytes=64) as server, RemoteTransparentLlm(server.address, max_bytes=1000) as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(errors.TooLargeError):
            llm.logits()
    assert watcher.messages <= 2  # of many; the second one was held back until the client had left


def test_a_part_of_it_is_read() -> None:
    with served() as whole:
        whole.run_tokens(ROWS)
        expected = whole.decomposed_attn(0, 1)
    with running() as server:
        with RemoteTransparentLlm(server.address, max_bytes=expected.nbytes // 7) as llm:
            llm.run_tokens(ROWS)
            with llm.reading(target=slice(-1, None)):
                assert torch.equal(llm.decomposed_attn(0, 1), expected[-1:])


def test_max_bytes_must_be_a_number_of_bytes() -> None:
    with pytest.raises(errors.InvalidRequestError, match="max_bytes is 0"):
        RemoteTransparentLlm("localhost:1", max_bytes=0)
