"""The Generate RPC: what it answers, that others have their turn, what it frees, and what it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from support.servers.engines import SOON, held
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import Listener, running, tiny
from support.servers.stub import refusal, stub
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import DeadlineError, NotSupportedError, TooLargeError, UnavailableError
from transparent_llm.interventions import add, head, patch, residual_out, zero
from transparent_llm.wire._gen import generation_pb2
from transparent_llm.wire.methods import QUEUE_POSITION_HEADER
from transparent_llm_server.models.generating.generation import Generation
from transparent_llm_server.rpc import server_info, servicer
from transparent_llm_server.scheduling.generation_bytes import GenerationBytes
from transparent_llm_server.scheduling.run_queue import RunQueue

pytestmark = pytest.mark.filterwarnings("ignore:the tokenizer defines no token")

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
V = torch.linspace(-1.5, 2, 64).sin()
BYTES_OF_A_TOKEN = 2 * 2 * 64 * 4  # keys and values of two layers, float32


@pytest.mark.parametrize("edits", [(), (add(residual_out(0), V, 3.0, positions="all"), zero(head(1, 2)))])
def test_a_remote_generation_is_a_local_one_and_its_run_that_of_its_tokens(edits: Any) -> None:
    local, drawn = tiny().copy(), {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "seed": 8, "top_logprobs": 4}
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        found = list(llm.generate_tokens(ROWS, 6, edits=edits, **drawn))  # type: ignore[arg-type]
        assert found == list(local.generate_tokens(ROWS, 6, edits=edits, **drawn))  # type: ignore[arg-type]
        assert torch.equal(llm.tokens(), local.tokens())
        run_id, lengths = llm.run_id(), llm.mask().sum(1).tolist()
        rows = [row[:length].tolist() for row, length in zip(llm.tokens(), lengths, strict=True)]
        assert rows[0][:6] == ROWS[0]
        for name, given in (("logits", ()), ("residual_out", (0,)), ("decomposed_attn", (1, 1))):
            assert torch.equal(getattr(llm, name)(*given), getattr(local, name)(*given))
        assert llm.server_info().stored_runs == 1  # which the client has asked for again by its tokens
        llm.run_tokens(rows, edits=edits)
        assert llm.run_id() == run_id
        texts = [step.text for step in llm.generate("The river", 3)]
        assert texts == [step.text for step in local.generate("The river", 3)]
        assert "generate" in llm.server_info().features


def test_others_have_their_turn_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    second, asked = threading.Event(), threading.Event()

    def step(compute: Callable[[], Any]) -> Any:
        order.append("step")
        if len(order) == 2:
            second.set()
            assert asked.wait(SOON)
        return compute()

    around(monkeypatch, step)
    with running() as server, ThreadPoolExecutor() as threads:
        one, other = RemoteTransparentLlm(server.address), RemoteTransparentLlm(server.address, keepalive_s=25)
        with one, other:
            other.run_tokens([[9, 9]])
            generating = threads.submit(lambda: list(one.generate_tokens([[1, 2]], 8)))
            assert second.wait(SOON)
            reading = threads.submit(lambda: other.logits().shape)
            running_ = threads.submit(lambda: (other.copy().run_tokens([[5, 6]]), order.append("run")))
            wait_until(lambda: server._engine.queued_runs == 1)
            asked.set()
            running_.result(SOON)
            assert reading.result(SOON)[1] == 2
            generating.result(SOON)
    assert order.index("run") < len(order) - 1
    assert order.count("step") == 8


def test_the_next_step_is_computed_while_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    computed, n = threading.Event(), 0

    def compute(work: Callable[[], Any]) -> Any:
        nonlocal n
        n += 1
        if n == 2:
            computed.set()
        return work()

    def tell(work: Callable[[], Any]) -> Any:
        assert computed.wait(SOON)
        return work()

    around(monkeypatch, compute)
    around(monkeypatch, tell, "told")
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        assert len(list(llm.generate_tokens([[1, 2]], 3))) == 3


@pytest.mark.parametrize("why", ["left", "late"])
def test_a_client_that_is_gone_frees_what_was_remembered(
    monkeypatch: pytest.MonkeyPatch, remembered: GenerationBytes, why: str
) -> None:
    third, goes_on, n = threading.Event(), threading.Event(), 0

    def step(compute: Callable[[], Any]) -> Any:
        nonlocal n
        n += 1
        if n == 3:
            third.set()
            assert goes_on.wait(SOON)
        return compute()

    around(monkeypatch, step)
    with running() as server, RemoteTransparentLlm(server.address, timeout_s=SOON if why == "left" else 3) as llm:
        llm.run_tokens([[1]])
        before = llm.run_id()
        steps = llm.generate_tokens(ROWS, 40)
        next(steps)
        assert third.wait(SOON)
        assert remembered.taken == BYTES_OF_A_TOKEN * (6 + 3 + 2 * 39)
        if why == "left":
            steps.close()  # type: ignore[attr-defined]
        else:
            with pytest.raises((DeadlineError, UnavailableError)):
                list(steps)
        goes_on.set()
        wait_until(lambda: remembered.taken == 0 and server._engine.busy_s == 0)
        assert n <= 4
        assert llm.run_id() == before
        assert llm.server_info().stored_runs == 1


def test_memory_is_counted_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    needed, n = BYTES_OF_A_TOKEN * (3 + 4), 0
    begun, goes_on = threading.Event(), threading.Event()

    def step(compute: Callable[[], Any]) -> Any:
        nonlocal n
        n += 1
        begun.set()
        assert goes_on.wait(SOON)
        return compute()

    around(monkeypatch, step, "chosen")
    with running(generation_bytes=needed) as server, RemoteTransparentLlm(server.address) as llm:
        with pytest.raises(TooLargeError, match=f"up to {needed + BYTES_OF_A_TOKEN} bytes .* take {needed} here"):
            list(llm.generate_tokens([[1, 2, 3]], 6))
        with ThreadPoolExecutor() as threads, grpc.insecure_channel(server.address) as channel:
            first = threads.submit(lambda: list(llm.copy().generate_tokens([[1, 2, 3]], 5)))
            assert begun.wait(SOON)
            error = refusal(stub(channel).Generate, request(max_new_tokens=1), timeout=SOON)
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"those under way have {needed} of {needed}" in error.details()
            again = threads.submit(lambda: list(llm.copy().generate_tokens([[1, 2, 3]], 5)))  # which waits for room
            goes_on.set()
            assert again.result(SOON) == first.result(SOON)
    assert n == 10


def test_positions_are_counted(positions: list[int]) -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        list(llm.generate_tokens([[1, 2, 3]], 4))
        assert positions == [3, 1, 1, 1, 6]
        positions.clear()
        list(llm.generate_tokens([[1, 2, 3]], 4, edits=[zero(head(0, 0))]))
        assert positions == [3, 4, 5, 6]  # the last step is the run
        positions.clear()
        list(llm.generate_tokens([[3, 2, 1]], 1))
        assert positions == [3]


def test_positions_are_of_the_owners_quota_and_what_is_left_is_given_back(tmp_path: Path) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    quota = {"tokens_file": file.path, "owner_positions_per_minute": 60}
    token = file.bearer_tokens["alice"]
    with running(**quota) as server, RemoteTransparentLlm(server.address, token=token, timeout_s=5) as llm:
        with pytest.raises(TooLargeError, match="takes 61 positions"):
            next(llm.generate_tokens([[1] * 20], 42))
        steps = llm.generate_tokens([[1] * 20], 40)
        next(steps)
        steps.close()  # type: ignore[attr-defined]
        asked, refused = request(max_new_tokens=10), list[str]()

        def generated() -> bool:
            with grpc.insecure_channel(server.address) as channel:
                metadata = [("authorization", f"Bearer {token}")]
                try:
                    return len(list(stub(channel).Generate(asked, metadata=metadata, timeout=SOON))) > 1
                except grpc.RpcError as error:
                    refused.append(str(error))
                    return False

        wait_until(generated)  # within the minute: of the other one little counts
        assert all("of the 60 that an owner may take" in words for words in refused)


def test_a_call_that_asks_for_its_place_is_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    reached, goes_on = threading.Event(), threading.Event()

    def wait(compute: Callable[[], Any]) -> Any:
        reached.set()
        assert goes_on.wait(SOON)
        return compute()

    around(monkeypatch, wait, "chosen")
    with running() as server, grpc.insecure_channel(server.address) as channel:
        asked = request(max_new_tokens=1)
        asked.prompts.append(asked.prompts[0])
        answer = stub(channel).Generate(asked, metadata=[(QUEUE_POSITION_HEADER, "")], timeout=SOON)
        assert reached.wait(SOON)  # its step was computed
        with held(server._engine):
            goes_on.set()
            assert len(next(answer).tokens) == 2
            wait_until(lambda: server._engine.queued_runs == 1)  # its run, behind another piece of work
        assert len(next(answer).run.rows) == 2


class Breaking(Listener):
    """Ends streams of Generate, each after as many messages as are left in the list."""

    def __init__(self, *after: int) -> None:
        super().__init__()
        self.after = list(after)

    def _streamed(
        self, answer: Callable[..., Iterator[Any]], request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        if self.names[-1] != "Generate" or not self.after:
            yield from answer(request, context)
            return
        most = self.after.pop()
        for n, message in enumerate(answer(request, context)):
            if n == most:
                context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            yield message


def test_what_breaks_before_the_first_step_is_made_again_and_later_it_is_told() -> None:
    breaking = Breaking(2, 0)
    with running(breaking) as server, RemoteTransparentLlm(server.address) as llm:
        llm.model_info()
        steps = llm.generate_tokens([[1, 2, 3]], 5)
        came = [next(steps), next(steps)]
        with pytest.raises(UnavailableError, match="was lost after 2 of at most 5 steps") as raised:
            next(steps)
        assert raised.value.metadata["steps"] == "2"
        assert breaking.after == []
        assert breaking.names.count("Generate") == 2
        assert list(llm.generate_tokens([[1, 2, 3]], 5))[:2] == came


def test_a_source_that_the_server_lost_is_brought_again() -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        source = llm.copy()
        source.run_tokens([[11, 12, 13]])
        edits = [patch(residual_out(0), source, positions=[0, 2])]
        wanted = list(llm.generate_tokens([[1, 2, 3]], 3, edits=edits))
        source.release()
        assert list(llm.generate_tokens([[1, 2, 3]], 3, edits=edits)) == wanted
        assert wanted != list(llm.generate_tokens([[1, 2, 3]], 3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.ClearField("max_new_tokens"), "max_new_tokens is 0"),
        (lambda r: r.ClearField("prompts"), "has no prompts"),
        (lambda r: r.prompts.add(text="x"), "all text or all token ids"),
        (lambda r: r.prompts.add(), "all text or all token ids"),
        (lambda r: r.messages.add(role="user", content="x"), "all text or all token ids"),
        (lambda r: (r.ClearField("prompts"), r.messages.add(role="user")), "no chat template"),
        (lambda r: r.prompts.extend([r.prompts[0]] * 4), "5 sentences at once, this server allows 4"),
        (lambda r: setattr(r, "max_new_tokens", 38), "41 tokens at once, this server allows 40"),
        (lambda r: setattr(r, "max_new_tokens", 2**32 - 1), "tokens at once, this server allows 40"),
        (lambda r: setattr(r.prompts[0], "text", "x" * 101), "101 bytes of text at once, this server allows 100"),
        (lambda r: setattr(r, "top_p", 0.0), "top_p is 0.0"),
        (lambda r: setattr(r, "temperature", float("nan")), "temperature is nan"),
        (lambda r: r.stop_token_ids.append(-1), "token -1 is not in the vocabulary"),
        (lambda r: r.MergeFromString(b"\xfa\x01\x01x"), "a field that this server does not know"),
    ],
)
def test_what_makes_no_sense_is_refused(change: Any, words: str) -> None:
    limits = {"max_sentences_per_run": 4, "max_tokens_per_run": 40, "max_text_bytes": 100}
    with running(**limits) as server, grpc.insecure_channel(server.address) as channel:
        asked = request(max_new_tokens=2)
        change(asked)
        error = refusal(stub(channel).Generate, asked, timeout=SOON)
        assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
        assert words in error.details()


def test_a_run_that_could_not_be_stored_is_refused_before_the_first_step(positions: list[int]) -> None:
    with running(run_store_bytes=10_000) as server, RemoteTransparentLlm(server.address) as llm:
        with pytest.raises(TooLargeError, match="the server stores 10000 of one owner"):
            next(llm.generate_tokens([[1, 2, 3]], 30))
        assert positions == []


def test_an_older_server_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_info, "FEATURES", tuple(each for each in server_info.FEATURES if each != "generate"))
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        with pytest.raises(NotSupportedError, match="knows no generate"):
            next(llm.generate("The river"))


def around(monkeypatch: pytest.MonkeyPatch, step: Callable[[Callable[[], Any]], Any], name: str = "logits") -> None:
    """Do this at each step, which is given what it does: `logits` on the model thread, the others on the call's own."""
    work = getattr(Generation, name)
    monkeypatch.setattr(Generation, name, lambda *given: step(lambda: work(*given)))


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> GenerationBytes:
    """Of the next server."""
    found = GenerationBytes(2**30, 0.1)
    monkeypatch.setattr(servicer, "GenerationBytes", lambda *_: found)
    return found


@pytest.fixture
def positions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """That runs and steps compute, as they are counted."""
    found: list[int] = []
    monkeypatch.setattr(RunQueue, "count", lambda _, n: found.append(n))
    return found


def request(**fields: Any) -> generation_pb2.GenerateRequest:
    prompt = generation_pb2.Prompt(tokens=generation_pb2.TokenRow(token_ids=[1, 2, 3]))
    return generation_pb2.GenerateRequest(prompts=[prompt], **fields)
