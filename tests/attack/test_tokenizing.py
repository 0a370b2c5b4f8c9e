"""Text that takes a tokenizer long: nobody else's runs wait for it, whoever gave it up leaves no work behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from attack.victim import ATTACKER, OTHER, SLOWER, Bystander, Victim, standing_by, victim
from support.families import FAMILIES, build_model, build_tokenizer
from transparent_llm.wire._gen import service_pb2, service_pb2_grpc

MIB = 2**20
HUNG_AFTER_S = 3.0
"""`hang_s` of the server. Its passes take milliseconds."""

WORDS = ["river", "mill", "road", "king", "queen", "bridge", "garden", "letter", "winter", "harbour"]

Call = Callable[[service_pb2_grpc.TransparentLlmServiceStub], object]


def text(*sentences: str) -> service_pb2.RunRequest:
    request = service_pb2.RunRequest()
    request.sentences.sentences.extend(sentences)
    return request


def rows(n_rows: int, n_tokens: int) -> service_pb2.RunRequest:
    request = service_pb2.RunRequest()
    for _ in range(n_rows):
        request.tokens.sequences.add(token_ids=[1] * n_tokens)
    return request


def ids(count: int) -> service_pb2.TokensToStringsRequest:
    return service_pb2.TokensToStringsRequest(token_ids=[i % 1000 for i in range(count)])


def run(request: service_pb2.RunRequest, timeout_s: float = 60.0) -> Call:
    return lambda service: service.Run(request, timeout=timeout_s)


def strings(request: service_pb2.TokensToStringsRequest, timeout_s: float = 60.0) -> Call:
    return lambda service: service.TokensToStrings(request, timeout=timeout_s)


class AsOwner(grpc.UnaryUnaryClientInterceptor):
    """Says whose each call is."""

    def __init__(self, metadata: list[tuple[str, str]]) -> None:
        self._metadata = metadata

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=self._metadata), request)


def codes(attacked: Victim, calls: list[Call], owner: str = ATTACKER) -> list[str]:
    """How these calls end, all made at one time over one connection."""
    with grpc.insecure_channel(attacked.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        service = service_pb2_grpc.TransparentLlmServiceStub(
            grpc.intercept_channel(channel, AsOwner(attacked.metadata(owner)))
        )

        def end_of(call: Call) -> str:
            try:
                call(service)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(end_of, calls))


@contextmanager
def running_beside(attacked: Victim, what: str) -> Iterator[Bystander]:
    """As `standing_by`, with another owner who makes a new small run again and again: `reads_s` are those."""
    with standing_by(attacked), attacked.client(OTHER, cache_bytes=0) as llm:
        sentences = (f"the {WORDS[i % 10]} and the {WORDS[i // 10 % 10]} {i}" for i in range(10**6))

        def once() -> float:
            began = time.monotonic()
            llm.run([next(sentences)])
            return time.monotonic() - began

        idle = Bystander(0.0, [once() for _ in range(100)][10:])
        runner, over = Bystander(idle.p99_s), threading.Event()

        def keep_running() -> None:
            while not over.wait(0.01):
                try:
                    runner.reads_s.append(once())
                except Exception as error:
                    runner.lost.append(str(error))
                    return

        thread = threading.Thread(target=keep_running)
        thread.start()
        began = time.monotonic()
        try:
            yield runner
        finally:
            took_s = time.monotonic() - began
            over.set()
            thread.join()
    print(
        f"{what}: {took_s:.1f} s; {len(runner.reads_s)} runs of another owner, p99 {runner.p99_s * 1000:.1f} ms "
        f"(idle {runner.idle_p99_s * 1000:.1f} ms), the longest {max(runner.reads_s):.2f} s"
    )
    assert not runner.lost
    assert runner.slower < SLOWER


@pytest.fixture(scope="module")
def attacked() -> Iterator[Victim]:
    with victim("--hang-s", str(HUNG_AFTER_S)) as attacked:
        yield attacked


def test_a_million_sentences_are_refused_before_a_tokenizer_sees_one(attacked: Victim, is_long: bool) -> None:
    many = text(*["a"] * 1_300_000)
    with running_beside(attacked, f"1.3 million sentences, {many.ByteSize() / 1e6:.1f} MB"):
        ends = [code for _ in range(10 if is_long else 2) for code in codes(attacked, [run(many)] * 3)]
    assert set(ends) == {"INVALID_ARGUMENT"}


def test_so_are_a_million_rows_of_tokens(attacked: Victim, is_long: bool) -> None:
    many, wide = rows(1_000_000, 1), rows(1000, 1000)
    with running_beside(attacked, f"a million rows, {many.ByteSize() / 1e6:.1f} MB"):
        ends = [code for _ in range(10 if is_long else 2) for code in codes(attacked, [run(many), run(wide)])]
    assert set(ends) == {"INVALID_ARGUMENT"}


@pytest.mark.parametrize("character", ["a", " ", "é", "🙂", "\n"], ids=["letter", "space", "accent", "emoji", "line"])
def test_four_megabytes_in_one_sentence_are_refused_at_once(attacked: Victim, character: str) -> None:
    length = 4 * MIB - 100
    long = text(character * (length // len(character.encode())))
    with running_beside(attacked, f"sentences of 4 MB, {character!r}"):
        assert set(codes(attacked, [run(long)] * 6)) == {"INVALID_ARGUMENT"}


def test_six_calls_that_are_given_up_do_not_look_like_a_model_that_hangs(attacked: Victim, is_long: bool) -> None:
    most = text("ab " * (4 * MIB // 3 - 40))
    with running_beside(attacked, "six calls of 4 MB, given up after 2 s"):
        for _ in range(3 if is_long else 1):
            codes(attacked, [run(most, timeout_s=2.0)] * 6)
        codes(attacked, [run(text(*["ab " * 340] * 1000), timeout_s=0.05)] * 6)
    assert "at one piece of work" not in attacked.log


def test_as_much_text_as_is_let_in_holds_up_nobody_else(attacked: Victim, is_long: bool) -> None:
    """1,000 sentences of 1 KB, the last of which is too long, so that nothing but the tokenizer has work."""
    allowed = text(*["the river " * 100] * 999, "river " * 4000)
    with running_beside(attacked, "1 MB of sentences, 24 calls at one time"):
        for _ in range(5 if is_long else 1):
            ends = codes(attacked, [run(allowed)] * 24)
            assert set(ends) <= {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}


def test_more_than_the_queue_takes_is_told_to_come_back(attacked: Victim) -> None:
    allowed = text(*["the river " * 100] * 999, "river " * 4000)
    with running_beside(attacked, "1 MB of sentences, 60 calls at one time"):
        ends = codes(attacked, [run(allowed)] * 60)
    assert set(ends) == {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    print(f"{ends.count('RESOURCE_EXHAUSTED')} of 60 refused as BUSY")


def test_the_strings_of_many_ids_hold_up_nobody_else(attacked: Victim, is_long: bool) -> None:
    most = ids(65_536)
    with running_beside(attacked, "the strings of 65,536 ids, 24 calls at one time"):
        for _ in range(5 if is_long else 1):
            assert set(codes(attacked, [strings(most)] * 24)) <= {"OK", "RESOURCE_EXHAUSTED"}
            codes(attacked, [strings(most, timeout_s=0.05)] * 24)


def test_a_megabyte_in_one_sentence_of_a_long_context_holds_up_nobody_else(tmp_path: Path, is_long: bool) -> None:
    """Where the context itself bounds nothing: what is let in takes seconds that nobody can interrupt."""
    config = FAMILIES["llama_gqa"]()
    config.max_position_embeddings = 131_072
    build_model(config).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    with victim("--model", f"long={tmp_path}", "--hang-s", str(HUNG_AFTER_S)) as attacked:
        for _ in range(2):  # what the first ones take of memory is kept
            codes(attacked, [run(text("ab" * (MIB // 2 - 10)), timeout_s=60.0)] * 4)
        with running_beside(attacked, "sentences of 1 MB for a context of 131,072"):
            for _ in range(3 if is_long else 1):
                codes(attacked, [run(text("ab" * (MIB // 2 - 10)), timeout_s=2.0)] * 6)
