"""Text that takes a tokenizer long: nobody else's runs wait for it, whoever gave it up leaves no work behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attack.victim import ATTACKER, OTHER, Bystander, Victim, percentile, standing_by, victim
from attack.volleys import Call, Volleys
from support.models.families import FAMILIES, build_model, build_tokenizer
from transparent_llm.wire._gen import service_pb2

pytestmark = pytest.mark.measured

MIB = 2**20
HUNG_AFTER_S = 3.0
"""`hang_s` of the server. Its passes take milliseconds."""
FEW_RUNS = ["--run-store-bytes", str(8 * MIB)]
"""The runs that others make beside an attack fill this much at once; what is kept of them is not the attack's."""

WORDS = ["river", "mill", "road", "king", "queen", "bridge", "garden", "letter", "winter", "harbour"]


def text(*sentences: str, timeout_s: float = 60.0) -> Call:
    request = service_pb2.RunRequest()
    request.sentences.sentences.extend(sentences)
    return Call("Run", request.SerializeToString(), timeout_s)


def rows(n_rows: int, n_tokens: int) -> Call:
    request = service_pb2.RunRequest()
    for _ in range(n_rows):
        request.tokens.sequences.add(token_ids=[1] * n_tokens)
    return Call("Run", request.SerializeToString())


SHORTEST_RUN_S = 0.06
"""What a small run takes on an idle server at p99 where processors are slow; a quick one is held to as much."""


def strings(count: int, timeout_s: float = 60.0) -> Call:
    request = service_pb2.TokensToStringsRequest(token_ids=[i % 1000 for i in range(count)])
    return Call("TokensToStrings", request.SerializeToString(), timeout_s)


def codes(attacked: Victim, calls: list[Call], owner: str = ATTACKER) -> list[str]:
    """How these calls end, all made at one time."""
    return Volleys(attacked.address, attacked.metadata(owner), calls).ends()


@contextmanager
def running_beside(attacked: Victim, what: str) -> Iterator[Bystander]:
    """As `standing_by`, with another owner who makes a new small run again and again: `reads_s` are those."""
    with standing_by(attacked), attacked.client(OTHER, cache_bytes=0) as llm:
        sentences = (f"the {WORDS[i % 10]} and the {WORDS[i // 10 % 10]} {i}" for i in range(10**6))

        def once() -> float:
            began = time.monotonic()
            llm.run([next(sentences)])
            return time.monotonic() - began

        idle_p99_s = percentile([once() for _ in range(100)][10:], 99)
        runner, over = Bystander(max(idle_p99_s, SHORTEST_RUN_S)), threading.Event()

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
            print(f"\n{what}: {took_s:.1f} s; runs of another owner: {runner}")
    assert not runner.lost
    runner.require_quick("runs")


def warm_up(attacked: Victim) -> None:
    """Large calls: what the C library keeps of them for each thread it keeps once, and only growth is to be seen."""
    large = [*[text("ab " * MIB)] * 24, *[text("a" * 60_000), strings(60_000)] * 6]
    for _ in range(5):
        codes(attacked, large)


@pytest.fixture(scope="module")
def attacked() -> Iterator[Victim]:
    with victim("--hang-s", str(HUNG_AFTER_S), *FEW_RUNS) as attacked:
        warm_up(attacked)
        yield attacked


def attack(attacked: Victim, calls: list[Call], is_long: bool) -> list[str]:
    """How these calls end, all made at one time, again and again for as long as figures need."""
    return Volleys(attacked.address, attacked.metadata(ATTACKER), calls, 20.0 if is_long else 2.0).ends()


def test_a_million_sentences_are_refused_before_a_tokenizer_sees_one(attacked: Victim, is_long: bool) -> None:
    many = text(*["a"] * 1_300_000)
    with running_beside(attacked, f"1.3 million sentences, {len(many.request) / 1e6:.1f} MB"):
        ends = attack(attacked, [many] * 3, is_long)
    assert set(ends) == {"INVALID_ARGUMENT"}


def test_so_are_a_million_rows_of_tokens(attacked: Victim, is_long: bool) -> None:
    many, wide = rows(800_000, 1), rows(1000, 1000)
    with running_beside(attacked, f"a million rows, {len(many.request) / 1e6:.1f} MB"):
        ends = attack(attacked, [many, wide], is_long)
    assert set(ends) == {"INVALID_ARGUMENT"}


@pytest.mark.parametrize("character", ["a", " ", "é", "🙂", "\n"], ids=["letter", "space", "accent", "emoji", "line"])
def test_four_megabytes_in_one_sentence_are_refused_at_once(attacked: Victim, character: str, is_long: bool) -> None:
    length = 4 * MIB - 100
    long = text(character * (length // len(character.encode())))
    with running_beside(attacked, f"sentences of 4 MB, {character!r}"):
        assert set(attack(attacked, [long] * 6, is_long)) == {"INVALID_ARGUMENT"}


def test_six_calls_that_are_given_up_do_not_look_like_a_model_that_hangs(attacked: Victim, is_long: bool) -> None:
    most = text("ab " * (4 * MIB // 3 - 40), timeout_s=2.0)
    with running_beside(attacked, "six calls of 4 MB, given up after 2 s"):
        attack(attacked, [most] * 6, is_long)
        attack(attacked, [text(*["ab " * 340] * 1000, timeout_s=0.05)] * 6, is_long)
    assert "at one piece of work" not in attacked.log


def test_as_much_text_as_is_let_in_holds_up_nobody_else(attacked: Victim, is_long: bool) -> None:
    """1,000 sentences of 1 KB, the last of which is too long, so that nothing but the tokenizer has work."""
    allowed = text(*["the river " * 80] * 999, "river " * 4000)
    with running_beside(attacked, "1 MB of sentences, 24 calls at one time"):
        ends = attack(attacked, [allowed] * 24, is_long)
    assert set(ends) <= {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}


def test_more_than_the_queue_takes_is_told_to_come_back(attacked: Victim, is_long: bool) -> None:
    allowed = text(*["the river " * 80] * 999, "river " * 4000)
    with running_beside(attacked, "1 MB of sentences, 60 calls at one time"):
        ends = attack(attacked, [allowed] * 60, is_long)
    assert set(ends) == {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    print(f"{ends.count('RESOURCE_EXHAUSTED')} of {len(ends)} refused as BUSY")


def test_the_strings_of_many_ids_hold_up_nobody_else(attacked: Victim, is_long: bool) -> None:
    with running_beside(attacked, "the strings of 65,536 ids, 12 calls at one time"):
        ends = attack(attacked, [strings(65_536)] * 12, is_long)
        attack(attacked, [strings(65_536, timeout_s=0.05)] * 12, is_long)
    assert set(ends) <= {"OK", "RESOURCE_EXHAUSTED"}


def test_a_megabyte_in_one_sentence_of_a_long_context_holds_up_nobody_else(tmp_path: Path, is_long: bool) -> None:
    """Where the context itself bounds nothing: what is let in takes seconds that nobody can interrupt."""
    config = FAMILIES["llama_gqa"]()
    config.max_position_embeddings = 131_072
    build_model(config).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    with victim("--model", f"long={tmp_path}", "--hang-s", str(HUNG_AFTER_S), *FEW_RUNS) as attacked:
        long = text("ab" * (MIB // 2 - 10), timeout_s=2.0)
        warm_up(attacked)
        codes(attacked, [long] * 8)
        with running_beside(attacked, "sentences of 1 MB for a context of 131,072"):
            attack(attacked, [long] * 6, is_long)
