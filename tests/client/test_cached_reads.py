"""What a client keeps and reads ahead: fewer calls, the same bits, and nothing that a caller could spoil."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
import torch
from transformers import Lfm2Config

from support.models.families import build_model, build_tokenizer
from support.servers.servers import Watcher, running, served, tiny
from transparent_llm import RemoteTransparentLlm, TransparentLlm, errors
from transparent_llm.testing import serve_in_process
from transparent_llm.wire.fetch import FETCHED_METHODS
from transparent_llm_server import TransformerLensTransparentLlm

ROWS = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10]]
N_LAYERS, N_HEADS, N_POS = 2, 4, 7

READS: list[tuple[Any, ...]] = [
    ("logits",),
    ("residual_in", 0),
    ("residual_after_attn", 1),
    ("residual_out", 1),
    ("ffn_out", 1),
    ("decomposed_ffn_out", 0, 1, 2),
    ("neuron_activations", 0, 1, 2),
    ("attention_matrix", 1, 1, 3),
    ("attention_output", 0, 1, 2),
    ("attention_output", 0, 1, 2, 3),
    ("decomposed_attn", 1, 0),
]

DATA_CALLS = {"".join(word.capitalize() for word in name.split("_")) for name in FETCHED_METHODS} | {"Fetch"}


def local_run(rows: list[list[int]] = ROWS) -> TransparentLlm:
    local = tiny().copy()
    local.run_tokens(rows)
    return local


def value_of(llm: TransparentLlm, read: Sequence[Any]) -> torch.Tensor:
    value: torch.Tensor = getattr(llm, read[0])(*read[1:])
    return value


@contextmanager
def watched(
    rows: list[list[int]] = ROWS, chunk_bytes: int = 2**20, **options: Any
) -> Iterator[tuple[RemoteTransparentLlm, Watcher]]:
    """A client with options that has run these rows, and who sees its calls."""
    watcher = Watcher()
    with running(watcher, chunk_bytes=chunk_bytes) as server:
        with RemoteTransparentLlm(server.address, timeout_s=30, **options) as llm:
            llm.run_tokens(rows)
            yield llm, watcher


def data_calls(watcher: Watcher) -> list[str]:
    """Calls that bring values of a run."""
    return [name for name in watcher.names if name in DATA_CALLS]


# Asked twice


def test_asking_twice_sends_one_call() -> None:
    local = local_run()
    with watched() as (llm, watcher):
        for read in READS:
            assert torch.equal(value_of(llm, read), value_of(local, read))
        sent = len(watcher.calls)
        assert len(data_calls(watcher)) == len(READS)
        for read in READS:
            assert torch.equal(value_of(llm, read), value_of(local, read))
        assert len(watcher.calls) == sent


def test_what_the_caller_writes_harms_no_later_read() -> None:
    local = local_run()
    with served() as llm:
        llm.run_tokens(ROWS)
        for read in [*READS, ("tokens",), ("mask",), ("neuron_output", 1, 3)]:
            for _ in range(3):
                got = value_of(llm, read)
                assert torch.equal(got, value_of(local, read)), read
                got.zero_()


def test_what_the_caller_writes_into_fetched_values_harms_nothing() -> None:
    local = local_run()
    with served() as llm:
        llm.run_tokens(ROWS)
        for _ in range(3):
            for read, got in zip(READS, llm.fetch(READS), strict=True):
                assert torch.equal(got, value_of(local, read)), read
                got.zero_()


def test_what_the_caller_writes_harms_no_value_that_was_read_ahead() -> None:
    local = local_run()
    with watched() as (llm, _):
        for _ in range(2):
            for head in range(N_HEADS):
                got = llm.attention_matrix(0, 1, head)
                assert torch.equal(got, local.attention_matrix(0, 1, head))
                got.zero_()


def test_what_leaves_a_layer_enters_the_next() -> None:
    local = local_run()
    with watched() as (llm, watcher):
        assert torch.equal(llm.residual_out(0), local.residual_out(0))
        assert torch.equal(llm.residual_in(1), local.residual_in(1))
        assert data_calls(watcher) == ["ResidualOut"]
    with watched() as (llm, watcher):
        assert torch.equal(llm.residual_in(1), local.residual_in(1))
        assert torch.equal(llm.residual_out(0), local.residual_out(0))
        assert data_calls(watcher) == ["ResidualIn"]


def test_what_leaves_the_last_layer_is_a_value_of_its_own() -> None:
    local = local_run()
    with watched() as (llm, _):
        assert torch.equal(llm.residual_in(1), local.residual_in(1))
        assert torch.equal(llm.residual_out(1), local.residual_out(1))
        assert torch.equal(llm.residual_in(0), local.residual_in(0))
        for layer in (2, -3):
            with pytest.raises(errors.IndexOutOfRangeError, match=f"layer {layer} is out of range"):
                llm.residual_out(layer)


def test_a_failure_is_not_kept() -> None:
    with watched() as (llm, watcher):
        for _ in range(2):
            with pytest.raises(errors.IndexOutOfRangeError, match="layer 7 is out of range: valid indices are 0 to 1"):
                llm.residual_in(7)
        assert data_calls(watcher) == ["ResidualIn"] * 2


def test_indices_of_any_kind_name_the_same_value() -> None:
    with watched() as (llm, watcher):
        llm.attention_matrix(torch.tensor(0), torch.tensor(1), 2)  # type: ignore[arg-type]
        llm.attention_matrix(False, True, torch.tensor(2))  # type: ignore[arg-type]
        assert data_calls(watcher) == ["AttentionMatrix"]


# A new run


def test_a_new_run_begins_with_nothing() -> None:
    other = local_run([[30, 31, 32]])
    with watched() as (llm, watcher):
        for read in READS:
            value_of(llm, read)
        assert llm._shared.cache.nbytes > 0
        llm.run_tokens([[30, 31, 32]])
        assert llm._shared.cache.nbytes == 0
        assert torch.equal(llm.residual_in(1), other.residual_in(1))
        llm.run_tokens(ROWS)
        assert torch.equal(llm.residual_in(1), local_run().residual_in(1))
    assert data_calls(watcher)[len(READS) :] == ["ResidualIn"] * 2


def test_a_run_that_failed_leaves_what_is_kept() -> None:
    with watched() as (llm, watcher):
        before = llm.residual_in(1)
        with pytest.raises(errors.InvalidRequestError):
            llm.run_tokens([[]])
        assert torch.equal(llm.residual_in(1), before)
        assert data_calls(watcher) == ["ResidualIn"]


def test_a_walk_does_not_go_on_in_a_new_run() -> None:
    with watched() as (llm, watcher):
        llm.attention_matrix(0, 0, 0)
        llm.run_tokens([[30, 31, 32]])
        llm.attention_matrix(0, 0, 1)
        assert "Fetch" not in watcher.names


def test_nothing_is_kept_of_a_run_that_was_lost() -> None:
    local = local_run()
    with watched() as (llm, watcher):
        llm.residual_in(0)
        llm.release()
        assert torch.equal(llm.fetch([("residual_in", 0), ("residual_in", 1)])[1], local.residual_in(1))
        assert torch.equal(llm.residual_in(0), local.residual_in(0))
    assert watcher.names.count("Run") == 2


# Limits


def test_with_no_room_nothing_is_kept_or_read_ahead() -> None:
    local = local_run()
    with watched(cache_bytes=0) as (llm, watcher):
        for read in [*READS, *READS]:
            assert torch.equal(value_of(llm, read), value_of(local, read))
        for head in range(N_HEADS):
            assert torch.equal(llm.attention_matrix(0, 0, head), local.attention_matrix(0, 0, head))
        assert llm._shared.cache.nbytes == 0
        assert "Fetch" not in watcher.names
        assert len(data_calls(watcher)) == 2 * len(READS) + N_HEADS


def test_with_no_room_many_values_come_all_the_same() -> None:
    local = local_run()
    with watched(cache_bytes=0) as (llm, watcher):
        llm.prefetch(READS)
        for read, got in zip(READS, llm.fetch(READS), strict=True):
            assert torch.equal(got, value_of(local, read))
        assert data_calls(watcher) == ["Fetch"] * 2


def test_a_value_over_a_quarter_of_the_room_is_not_kept() -> None:
    nbytes = local_run().residual_in(0).nbytes
    with watched(cache_bytes=4 * nbytes) as (llm, watcher):
        llm.residual_in(0)
        llm.residual_in(0)
        llm.logits()
        llm.logits()
        assert data_calls(watcher) == ["ResidualIn", "Logits", "Logits"]


def test_what_is_kept_stays_within_the_room() -> None:
    nbytes = local_run().residual_in(0).nbytes
    with watched(cache_bytes=4 * nbytes, read_ahead_bytes=0) as (llm, watcher):
        reads = [("residual_in", 0), ("residual_in", 1), ("ffn_out", 0), ("ffn_out", 1), ("residual_after_attn", 0)]
        for read in reads:
            value_of(llm, read)
        assert llm._shared.cache.nbytes == 4 * nbytes
        for read in reads[1:]:
            value_of(llm, read)
        assert len(data_calls(watcher)) == 5
        value_of(llm, reads[0])
        assert len(data_calls(watcher)) == 6


# Walks


def test_a_loop_over_layers_and_heads_needs_few_calls() -> None:
    local = local_run()
    with watched() as (llm, watcher):
        for layer, head in product(range(N_LAYERS), range(N_HEADS)):
            assert torch.equal(llm.attention_matrix(0, layer, head), local.attention_matrix(0, layer, head))
        assert data_calls(watcher) == ["AttentionMatrix", "Fetch", "Fetch"]  # of 8 reads


def test_a_loop_over_everything_needs_few_calls() -> None:
    local = local_run([list(range(1, 61))])
    with watched([list(range(1, 61))]) as (llm, watcher):
        for layer, pos, head in product(range(N_LAYERS), range(60), range(N_HEADS)):
            read = (0, layer, pos, head)
            assert torch.equal(llm.attention_output(*read), local.attention_output(*read))
        assert len(data_calls(watcher)) <= 18  # of 480 reads


@pytest.mark.parametrize("name", ["neuron_activations", "decomposed_ffn_out", "attention_output"])
def test_a_loop_over_positions_needs_few_calls(name: str) -> None:
    local = local_run([list(range(1, 61))])
    with watched([list(range(1, 61))]) as (llm, watcher):
        for pos in reversed(range(60)):
            assert torch.equal(value_of(llm, (name, 0, 1, pos)), value_of(local, (name, 0, 1, pos)))
        assert len(data_calls(watcher)) <= 6  # of 60 reads


@pytest.mark.parametrize("name", ["residual_in", "residual_after_attn", "residual_out", "ffn_out"])
def test_a_loop_over_layers_gives_what_is_asked_for(name: str) -> None:
    local = local_run()
    with watched() as (llm, _):
        for layer in [*range(N_LAYERS), *reversed(range(N_LAYERS))]:
            assert torch.equal(value_of(llm, (name, layer)), value_of(local, (name, layer)))


def test_loops_over_several_methods_are_walks_of_their_own() -> None:
    local = local_run()
    with watched() as (llm, watcher):
        for batch_i, layer, head in product(range(2), range(N_LAYERS), range(N_HEADS)):
            read = (batch_i, layer, head)
            assert torch.equal(llm.attention_matrix(*read), local.attention_matrix(*read))
            assert torch.equal(llm.decomposed_attn(batch_i, layer), local.decomposed_attn(batch_i, layer))
        assert len(data_calls(watcher)) <= 10  # of 20 values


@pytest.mark.parametrize("read_ahead_bytes", [0, 1])
def test_without_reading_ahead_each_read_is_a_call(read_ahead_bytes: int) -> None:
    with watched(read_ahead_bytes=read_ahead_bytes) as (llm, watcher):
        for layer, head in product(range(N_LAYERS), range(N_HEADS)):
            llm.attention_matrix(0, layer, head)
        assert data_calls(watcher) == ["AttentionMatrix"] * 8


def test_no_more_is_read_ahead_than_allowed() -> None:
    nbytes = local_run().attention_matrix(0, 0, 0).nbytes
    with watched(read_ahead_bytes=2 * nbytes - 1) as (llm, watcher):
        for layer, head in product(range(N_LAYERS), range(N_HEADS)):
            llm.attention_matrix(0, layer, head)
        # alone; 2 with 3; 4 while 3 is looked at; nobody knows yet where the next row begins: 5 with 6; then 7, 8
        assert data_calls(watcher) == ["AttentionMatrix", *["Fetch"] * 5]


def test_jumps_are_read_one_by_one() -> None:
    with watched() as (llm, watcher):
        for read in [(0, 0, 3), (1, 1, 1), (0, 0, 2), (1, 1, 0)]:
            llm.attention_matrix(*read)
        assert data_calls(watcher) == ["AttentionMatrix"] * 4


def test_within_a_block_parts_are_read_ahead() -> None:
    local = local_run()
    with watched() as (llm, watcher), llm.reading(query_pos=slice(-1, None), dtype=torch.bfloat16):
        for layer, head in product(range(N_LAYERS), range(N_HEADS)):
            wanted = local.attention_matrix(0, layer, head)[-1:].bfloat16()
            assert torch.equal(llm.attention_matrix(0, layer, head), wanted)
        assert len(data_calls(watcher)) == 3


def layers_without_heads() -> Lfm2Config:
    """A convolution in place of attention in the first layer only."""
    return Lfm2Config(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        layer_types=["conv", "full_attention", "full_attention"],
        block_auto_adjust_ff_dim=False,
    )


def test_a_walk_towards_a_value_that_cannot_be_read_gives_those_before() -> None:
    hf_model, tokenizer = build_model(layers_without_heads()), build_tokenizer()
    local = TransformerLensTransparentLlm("hybrid", hf_model=hf_model, tokenizer=tokenizer)
    local.run_tokens(ROWS)
    with serve_in_process(local) as llm:
        llm.run_tokens(ROWS)
        for layer in (2, 1):
            assert torch.equal(llm.attention_matrix(0, layer, 1), local.attention_matrix(0, layer, 1))
        with pytest.raises(errors.NotSupportedError, match="it has no attention heads"):
            llm.attention_matrix(0, 0, 1)
        assert torch.equal(llm.attention_matrix(0, 2, 1), local.attention_matrix(0, 2, 1))


# Many at once


def test_fetch_is_one_call_in_the_order_asked_for() -> None:
    local = local_run()
    for reads in (READS, READS[::-1]):
        with watched() as (llm, watcher):
            got = llm.fetch(reads)
            assert data_calls(watcher) == ["Fetch"]
            for read, value in zip(reads, got, strict=True):
                wanted = value_of(local, read)
                assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape)
                assert torch.equal(value, wanted), read


def test_what_can_be_fetched_without_arguments_can_be_named_alone() -> None:
    local = local_run()
    with watched() as (llm, _):
        logits, tokens, again = llm.fetch(["logits", ("tokens",), ("logits",)])
        assert torch.equal(logits, local.logits())
        assert torch.equal(tokens, local.tokens())
        assert torch.equal(again, logits)


def test_what_is_asked_for_twice_comes_once_as_two_values() -> None:
    with watched(chunk_bytes=1024) as (llm, watcher):
        one, other = llm.fetch([("residual_in", 1), ("residual_in", 1)])
        assert torch.equal(one, other)
        assert watcher.messages == -(-one.nbytes // 1024)
        one.zero_()
        assert torch.equal(other, local_run().residual_in(1))


def test_one_value_under_two_names_comes_once() -> None:
    local = local_run()
    with watched(chunk_bytes=1024) as (llm, watcher):
        out, entering = llm.fetch([("residual_out", 0), ("residual_in", 1)])
        assert torch.equal(out, local.residual_out(0))
        assert torch.equal(entering, local.residual_in(1))
        assert watcher.messages == -(-out.nbytes // 1024)


def test_what_is_kept_is_not_fetched_again() -> None:
    with watched(chunk_bytes=1024) as (llm, watcher):
        kept = llm.logits()
        sent = watcher.messages
        got = llm.fetch(["logits", ("residual_in", 0)])
        assert torch.equal(got[0], kept)
        assert watcher.messages - sent == -(-got[1].nbytes // 1024)
        llm.fetch(["logits", ("residual_in", 0)])
        assert data_calls(watcher) == ["Logits", "Fetch"]


def test_after_prefetch_reads_need_no_call() -> None:
    local = local_run()
    with watched() as (llm, watcher):
        assert llm.prefetch(READS) is None  # type: ignore[func-returns-value]
        sent = data_calls(watcher)
        assert sent == ["Fetch"]
        for read in READS:
            assert torch.equal(value_of(llm, read), value_of(local, read))
        llm.fetch(READS)
        llm.prefetch(READS)
        assert data_calls(watcher) == sent


def test_nothing_asked_for_is_no_call() -> None:
    with watched() as (llm, watcher):
        assert llm.fetch([]) == []
        llm.prefetch([])
        assert watcher.names == ["Run"]


def test_thousands_come_in_several_calls() -> None:
    rows = [list(range(1, 61))] * 5
    local = local_run(rows)
    reads = [
        ("attention_output", *indices) for indices in product(range(5), range(N_LAYERS), range(60), (None, 0, 1, 3))
    ]
    with watched(rows) as (llm, watcher):
        for read, value in zip(reads, llm.fetch(reads), strict=True):
            assert torch.equal(value, value_of(local, read))
        assert data_calls(watcher) == ["Fetch", "Fetch"]


@pytest.mark.parametrize("name", ["run", "batch_size", "tokens_to_strings", "unembed", "neuron_output", "model_info"])
def test_what_cannot_be_fetched_is_refused(name: str) -> None:
    known = ", ".join(sorted(FETCHED_METHODS))
    with watched() as (llm, watcher):
        for call in (llm.fetch, llm.prefetch):
            with pytest.raises(errors.InvalidRequestError) as refused:
                call(["logits", (name,)])
            assert str(refused.value) == f"{name!r} cannot be fetched; call it by itself; these can: {known}"
        assert data_calls(watcher) == []


NO_READS: list[tuple[Any, str]] = [
    ([name], f"{name!r} cannot be fetched; these can: {', '.join(sorted(FETCHED_METHODS))}")
    for name in ("nothing", "copy", "__init__", "mask")
]
NO_READS += [
    ([("unembed", torch.zeros(64), True)], "'unembed' cannot be fetched; call it by itself; these can: "),
    ([("residual_in", 0, 1)], "residual_in takes layer; got 2 arguments"),
    ([("logits", 0)], "logits takes no argument; got 1 arguments"),
    ("logits", "this takes a list of reads, got one: write ['logits']"),
    (("residual_in", 1), "this takes a list of reads, got one: write [('residual_in', ...)]"),
    (7, "this takes a list of reads, got int 7"),
    ([3], "fetch takes method names, or tuples of a name and its arguments, got '3'"),
    ([()], "fetch takes method names, or tuples of a name and its arguments, got '()'"),
    ([("residual_in", "one")], "layer must be an integer, got str 'one'"),
    ([("attention_matrix", 0, 1.0, 2)], "layer must be an integer, got float 1.0"),
]


@pytest.mark.parametrize(("reads", "said"), NO_READS, ids=str)
def test_what_is_no_read_is_refused(reads: Any, said: str) -> None:
    with watched() as (llm, watcher):
        for call in (llm.fetch, llm.prefetch, llm.plan):
            with pytest.raises(errors.InvalidRequestError) as refused:
                call(reads)
            assert str(refused.value).startswith(said)
        assert watcher.names == ["Run"]


def test_an_index_from_the_end_is_kept_as_the_one_that_it_stands_for() -> None:
    local = local_run()
    with watched() as (llm, watcher):
        assert torch.equal(llm.attention_matrix(-1, -1, -1), local.attention_matrix(1, 1, 3))
        assert torch.equal(llm.attention_matrix(1, 1, 3), local.attention_matrix(1, 1, 3))
        assert torch.equal(llm.residual_out(-2), local.residual_out(0))
        assert torch.equal(llm.residual_in(-1), local.residual_in(1))
        llm.fetch([("attention_matrix", 1, -1, 3), ("residual_in", 1)])
        assert data_calls(watcher) == ["AttentionMatrix", "ResidualOut"]


def test_a_missing_index_is_told() -> None:
    with watched() as (llm, _), pytest.raises(errors.InvalidRequestError, match="AttentionMatrix needs head; "):
        llm.fetch([("attention_matrix", 0, 1)])


def test_one_index_out_of_range_fails_the_whole_and_spoils_nothing() -> None:
    with watched() as (llm, _):
        with pytest.raises(errors.IndexOutOfRangeError, match="layer 2 is out of range: valid indices are 0 to 1"):
            llm.fetch([("residual_in", 1), ("ffn_out", 2)])
        assert torch.equal(llm.fetch([("residual_in", 1)])[0], local_run().residual_in(1))


def test_many_values_need_a_run_too() -> None:
    with served() as llm:
        for call in (llm.fetch, llm.prefetch):
            with pytest.raises(errors.NotRunError):
                call(["logits"])


# Copies


def test_copies_have_walks_of_their_own() -> None:
    with watched() as (llm, watcher):
        twin = llm.copy()
        llm.attention_matrix(0, 0, 0)
        twin.attention_matrix(0, 0, 1)
        llm.residual_in(0)
        twin.residual_in(1)
        assert "Fetch" not in watcher.names
        llm.attention_matrix(0, 0, 1)  # kept, but a step of the walk
        llm.attention_matrix(0, 0, 2)
        assert watcher.names.count("Fetch") == 1


def test_copies_share_what_is_kept_of_a_run_that_they_share() -> None:
    with watched() as (llm, watcher):
        twin = llm.copy()
        assert torch.equal(llm.logits(), twin.logits())
        assert data_calls(watcher) == ["Logits"]


def test_a_copy_that_runs_leaves_the_original_its_values() -> None:
    with watched() as (llm, _):
        twin = llm.copy()
        before = llm.residual_in(1)
        twin.run_tokens([[30, 31, 32]])
        assert torch.equal(twin.residual_in(1), local_run([[30, 31, 32]]).residual_in(1))
        assert torch.equal(llm.residual_in(1), before)
        assert llm.tokens().shape == (2, 7)
        llm.run_tokens([[40]])
        assert twin.tokens().tolist() == [[30, 31, 32]]
        assert torch.equal(twin.residual_in(1), local_run([[30, 31, 32]]).residual_in(1))


def read_in_thread(llm: RemoteTransparentLlm, number: int, barrier: threading.Barrier, failures: list[str]) -> None:
    local = local_run([[number + 1, 2, 3, 4]])
    barrier.wait(30)
    llm.run_tokens([[number + 1, 2, 3, 4]])
    for _ in range(3):
        for layer, head in product(range(N_LAYERS), range(N_HEADS)):
            got = llm.attention_matrix(0, layer, head)
            if not torch.equal(got, local.attention_matrix(0, layer, head)):
                failures.append(f"thread {number}: layer {layer}, head {head}")
            got.zero_()


def test_threads_with_copies_keep_their_values_apart() -> None:
    failures, barrier = list[str](), threading.Barrier(6)
    with watched(cache_bytes=4096) as (llm, _):
        threads = [
            threading.Thread(target=read_in_thread, args=(llm.copy(), number, barrier, failures)) for number in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


# What travels, and where it lands


def test_decomposed_attention_travels_as_its_factors() -> None:
    rows = [list(range(1, 61))]
    with watched(rows, chunk_bytes=1024) as (llm, watcher):
        value = llm.decomposed_attn(0, 1)
        assert torch.equal(value, local_run(rows).decomposed_attn(0, 1))
        assert watcher.messages * 1024 < value.nbytes / 25
        assert llm._shared.cache.nbytes < value.nbytes / 25


def test_a_part_of_decomposed_attention_travels_in_less_still() -> None:
    rows = [list(range(1, 61))]
    with watched(rows, chunk_bytes=1024) as (llm, watcher):
        llm.decomposed_attn(0, 1)
        whole, watcher.messages = watcher.messages, 0
        with llm.reading(target=slice(-1, None)):
            llm.decomposed_attn(0, 1)
        assert watcher.messages < whole * 0.6  # the pattern is one row of 60; what each source offers is all there


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "meta"], ids=str)
def test_values_land_where_they_are_wanted(device: str | torch.device) -> None:
    """The meta device is the one other that every machine has."""
    with watched(device=device) as (llm, watcher):
        for _ in range(2):
            for read in [*READS, ("tokens",), ("mask",), ("neuron_output", 1, 3)]:
                assert value_of(llm, read).device == torch.device(device)
        assert {value.device for value in llm.fetch(READS)} == {torch.device(device)}
        assert llm.unembed(torch.zeros(64), True).device == torch.device(device)
        assert len(data_calls(watcher)) == len(READS)
