"""Analyses that are as large as may be, of many at a time: they end soon, memory stays, others go on reading."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
import torch

from attack.checkpoint_folders import saved
from attack.victim import ATTACKER, MissedBoundError, Victim, standing_by, victim
from support.models.families import FAMILIES, build_model
from support.servers.stub import stub
from transparent_llm.wire._gen import analysis_pb2
from transparent_llm.wire.parameters import MOST_NUMBERS

pytestmark = pytest.mark.measured

N_POS, N_CLIENTS = 512, 8
SOON_S = 30.0
"""For what takes about a second."""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """Of a model with room for so many tokens."""
    config = FAMILIES["gpt2"]()
    config.update({"n_positions": N_POS})
    folder = saved(build_model(config), tmp_path_factory.mktemp("models") / "gpt2")
    with victim("--model", str(folder)) as started:
        yield started


def test_the_longest_lists_that_are_taken_end_soon(attacked: Victim) -> None:
    """Each token was compared with all others at each position by itself: 146 s, in one piece."""
    most = [1] * MOST_NUMBERS
    with (
        attacked.client(ATTACKER) as llm,
        grpc.insecure_channel(attacked.address, [("grpc.max_receive_message_length", -1)]) as channel,
    ):
        llm.run_tokens([list(range(1, N_POS // 2))])
        request = analysis_pb2.LayerLensRequest(
            run_id=llm.run_id(), batch_i=0, layer=0, positions=most, token_ids=most, with_kl=True
        )
        chunks = list(stub(channel).LayerLens(request, timeout=SOON_S, metadata=attacked.metadata()))
        assert sum(len(chunk.data) for chunk in chunks) > MOST_NUMBERS**2 * 12


def test_graphs_of_many_clients_take_no_vector_for_each_pair(attacked: Victim) -> None:
    """What they take together is less than the products of one layer would."""
    with ExitStack() as stack, ThreadPoolExecutor(N_CLIENTS) as pool:
        clients = [stack.enter_context(attacked.client(ATTACKER, cache_bytes=0)) for _ in range(N_CLIENTS)]
        for number, llm in enumerate(clients):
            llm.run_tokens([[1 + (number + 7 * pos) % 400 for pos in range(N_POS)]])
        info = clients[0].model_info()
        clients[0].contribution_graph()  # what is loaded once
        with standing_by(attacked):
            before = attacked.resident_bytes
            Path(f"/proc/{attacked.process.pid}/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
            graphs = list(pool.map(lambda llm: llm.contribution_graph(), clients))
            taken = peak_bytes(attacked) - before
    dense = N_POS * N_POS * info.n_heads * info.d_model * 4
    print(f"{N_CLIENTS} graphs took {taken / 2**20:.0f} MiB; products of a layer are {dense / 2**20:.0f}")
    assert all(torch.equal(graph.attention, graph.attention.tril()) for graph in graphs)
    if taken >= dense:
        raise MissedBoundError(f"{taken / 2**20:.0f} MiB")


def peak_bytes(attacked: Victim) -> int:
    status = Path(f"/proc/{attacked.process.pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
