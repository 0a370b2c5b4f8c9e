"""Attacks on whose values one gets: a long prompt beside a short one, two threads on one object, weights written to.

No process is attacked here: servers are this process's own, so that every value can be compared with the model's.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from support.models.families import FAMILIES, N_CTX, build_model, build_tokenizer
from support.models.reference import HuggingFaceReference
from support.servers.engines import SOON, held
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import NotFoundError, NotRunError
from transparent_llm_server import TransformerLensTransparentLlm

SHORT, LONG = [[9, 8, 7, 6, 5]], [list(range(1, N_CTX + 1))]


def plain(family: str) -> HuggingFaceReference:
    return HuggingFaceReference(build_model(FAMILIES[family]()), build_tokenizer(), prepend_bos=False)


def loaded(family: str) -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(family, hf_model=build_model(FAMILIES[family]()), tokenizer=build_tokenizer())


def test_a_long_prompt_moves_nothing_of_a_short_ones(is_long: bool) -> None:
    """Before: logits moved by 0.7 of 3, and the wrong run was stored under the right name."""
    for family in FAMILIES if is_long else ("phi3_longrope", "gpt_oss", "mpt"):
        llm, wanted = loaded(family), plain(family)
        wanted.run_tokens(SHORT)
        with running(serving={family: llm}, shared_positions=4 * N_CTX) as server:
            victim, attacker, third = (RemoteTransparentLlm(server.address, timeout_s=SOON) for _ in range(3))
            with ThreadPoolExecutor(2) as pool:
                with held(server._engine):
                    runs = [pool.submit(victim.run_tokens, SHORT), pool.submit(attacker.run_tokens, LONG)]
                    wait_until(lambda: server._engine.queued_runs == 2, SOON)
                for run in runs:
                    run.result(SOON)
            third.run_tokens(SHORT)
            moved = [(client.logits() - wanted.logits()).abs().max().item() for client in (victim, third)]
            for client in (victim, attacker, third):
                client.close()
        print(f"\n{family}: a short row beside one of {N_CTX} tokens is moved by {max(moved):.1g}")
        assert max(moved) <= 1e-5


def test_no_thread_gets_anothers_answer(is_long: bool) -> None:
    """Before: half of the answers were the other thread's."""
    llm = loaded("gpt2")
    rows, turns = [[[1, 2, 3]], [[4, 5, 6]]], 1000 if is_long else 50
    wanted = []
    for batch in rows:
        own = llm.copy()
        own.run_tokens(batch)
        wanted.append(own.residual_out(1))
    right, told, wrong, barrier = [0, 0], [0, 0], [0, 0], threading.Barrier(2)
    with running(serving={"gpt2": llm}) as server, RemoteTransparentLlm(server.address, timeout_s=SOON) as shared:

        def work(me: int) -> None:
            for _ in range(turns):
                barrier.wait(SOON)
                shared.run_tokens(rows[me])
                barrier.wait(SOON)
                try:
                    got = shared.residual_out(1)
                except NotRunError:
                    told[me] += 1
                else:
                    (right if torch.equal(got, wanted[me]) else wrong)[me] += 1

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, range(2)))
    print(f"\n{2 * turns} answers: {sum(right)} right, {sum(told)} told of the other thread, {sum(wrong)} wrong")
    assert sum(wrong) == 0
    assert sum(right) + sum(told) == 2 * turns


def test_no_read_mixes_weights_of_before_and_after() -> None:
    """Before: every read of a run answered, from old values multiplied with new weights."""
    model = build_model(FAMILIES["llama_gqa"]())
    llm = TransformerLensTransparentLlm("edited", hf_model=model, tokenizer=build_tokenizer())
    digest, weights, told = llm.describe().digest, list(model.parameters()), 0
    for weight in weights:
        llm.run_tokens(SHORT)
        with torch.no_grad():
            weight.mul_(1.01)
        for read in (llm.logits, lambda: llm.decomposed_attn(0, 1), lambda: llm.decomposed_ffn_out(0, 1, 1)):
            with pytest.raises(NotFoundError, match="weights were changed since"):
                read()
            told += 1
        assert llm.describe().digest != digest
        digest = llm.describe().digest
    print(f"\n{len(weights)} weights written to: {told} of {told} reads refused, {len(weights)} digests renewed")
