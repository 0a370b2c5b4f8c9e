"""The server is killed in the middle of a stream and started again on its port: the client still gets the values."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.models.families import save
from support.models.tensors import assert_same_bits
from support.network.ports import free_port
from support.network.proxy import interrupting
from support.servers.patience import waiting
from support.servers.replicas import Replica
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import DeadlineError, NotFoundError

ROWS = [list(range(1, 61)) for _ in range(64)]
RUN_BYTES = 300_000
"""More than goes to the client before the transfer begins."""

SEED = 20261124
STARTS_WITHIN_S = 110
"""A process may take longer to start than a client waits otherwise."""


class Server(Replica):
    """One that serves whenever it has been started."""

    def start(self) -> None:
        super().start()
        self.await_ready()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("gpt2", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[Server]:
    host = "127.0.0.1"
    server = Server(host, (free_port([host]), free_port([host])), ["--model", str(folder)], tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Restart(threading.Thread):
    """Waits for an interruption, then kills the server and starts it again."""

    def __init__(self, server: Server, was_interrupted: threading.Event) -> None:
        super().__init__()
        self._server, self._was_cut = server, was_interrupted
        self.restarts = 0

    def run(self) -> None:
        self._was_cut.wait()
        self._server.kill()
        self._server.start()
        self.restarts += 1


def test_the_client_ends_with_the_right_values(server: Server, is_long: bool) -> None:
    chance, restarts = random.Random(SEED), 0
    with RemoteTransparentLlm(server.address) as direct:
        direct.run_tokens(ROWS)
        expected = direct.residual_out(1)
    for _ in range(20 if is_long else 2):
        with interrupting(server.address, [chance.randrange(RUN_BYTES, expected.nbytes)]) as proxy:
            restart = Restart(server, proxy.was_interrupted)
            restart.start()
            try:
                settings = {"timeout_s": 120, "reconnect_s": STARTS_WITHIN_S, "shared_memory": False}
                with RemoteTransparentLlm(proxy.address, **settings) as llm:
                    llm.run_tokens(ROWS)
                    assert not proxy.was_interrupted.is_set()
                    assert_same_bits(llm.residual_out(1), expected)
                    assert proxy.interruptions == 1
            finally:
                proxy.was_interrupted.set()
                restart.join()
            restarts += restart.restarts
    print(f"\n{restarts} servers killed and started again, seed {SEED}")
    assert restarts == (20 if is_long else 2)


def test_without_rerun_the_loss_is_told(server: Server) -> None:
    with RemoteTransparentLlm(server.address, timeout_s=120, rerun=False) as llm:
        llm.run_tokens(ROWS)
        server.kill()
        server.start()
        with pytest.raises(NotFoundError) as lost:
            llm.residual_out(1)
        assert lost.value.reason == "RUN_NOT_FOUND"


def test_a_run_waits_for_a_server_that_is_started_again(server: Server) -> None:
    with RemoteTransparentLlm(server.address, timeout_s=120, reconnect_s=STARTS_WITHIN_S) as llm:
        llm.run_tokens(ROWS)
        expected = llm.residual_out(1)
        server.kill()
        assert not llm.is_serving()
        restart = threading.Thread(target=server.start)
        restart.start()
        try:
            llm.run_tokens(ROWS[:8])
        finally:
            restart.join()
        assert_same_bits(llm.residual_out(1), expected[:8])


def test_a_server_that_stays_away_is_named_when_time_is_up(server: Server) -> None:
    with RemoteTransparentLlm(server.address, timeout_s=120) as llm:
        llm.run_tokens(ROWS)
        server.kill()
        lost = rf"{server.address} was lost and did not come back within 6 s"
        with waiting(llm, timeout_s=6), pytest.raises(DeadlineError, match=lost):
            llm.run_tokens(ROWS[:8])
        server.start()
