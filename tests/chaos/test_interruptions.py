"""Connections are interrupted at random bytes: every transfer ends all the same, with the same bits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch

from support.models.tensors import assert_same_bits
from support.network.proxy import interrupting
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm_server.app import Server

SEED = 20261124
CHUNKS = (1_000, 65_536, 2**20)
"""Data bytes in a message; the first is no multiple of any element."""

SIZES = ((1, 8), (8, 32), (48, 60))
"""Rows and positions."""

READS: list[list[tuple[Any, ...]]] = [
    [("logits",)],
    [("residual_out", 1)],
    [("decomposed_attn", 0, 1)],
    [("decomposed_ffn_out", 0, 1, 3)],
    [("attention_matrix", 0, 1, 2)],
    [("ffn_out", 0), ("ffn_out", 1)],
]
DTYPES = (None, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, Server]]:
    with ExitStack() as stack:
        yield {size: stack.enter_context(running(chunk_bytes=size)) for size in CHUNKS}


def client(address: str) -> RemoteTransparentLlm:
    """Everything that it reads goes through the connection."""
    return RemoteTransparentLlm(
        address, timeout_s=60, shared_memory=False, cache_bytes=0, read_ahead_bytes=0, weights_bytes=0
    )


def test_every_interrupted_transfer_ends_with_the_same_bits(servers: dict[int, Server], is_long: bool) -> None:
    chance = random.Random(SEED)
    transfers, planned, made, sent = 200 if is_long else 25, 0, 0, 0
    for _ in range(transfers):
        server, (n_rows, n_pos) = servers[chance.choice(CHUNKS)], chance.choice(SIZES)
        rows = [[chance.randrange(1, 50) for _ in range(n_pos)] for _ in range(n_rows)]
        reads, dtype = chance.choice(READS), chance.choice(DTYPES)
        with client(server.address) as direct, direct.reading(dtype=dtype):
            direct.run_tokens(rows)
            expected = read(direct, reads)
            nbytes = sum(value.transfer_bytes for value in direct.plan(reads))
        after = [chance.randrange(1, nbytes), *(chance.randrange(nbytes) for _ in range(chance.choice((0, 0, 1, 2))))]
        with interrupting(server.address, after) as proxy, client(proxy.address) as llm, llm.reading(dtype=dtype):
            llm.run_tokens(rows)
            for value, wanted in zip(read(llm, reads), expected, strict=True):
                assert_same_bits(value, wanted)
            assert proxy.interruptions >= 1, (reads, after)
        planned, made, sent = planned + len(after), made + proxy.interruptions, sent + nbytes
    print(f"\n{transfers} transfers of {sent} bytes in all, {made} interruptions of {planned} planned, seed {SEED}")
    assert made >= transfers


def read(llm: RemoteTransparentLlm, reads: list[tuple[Any, ...]]) -> list[torch.Tensor]:
    """By the method, or where there are several in one stream."""
    if len(reads) > 1:
        return llm.fetch(reads)
    name, *indices = reads[0]
    return [getattr(llm, name)(*indices)]
