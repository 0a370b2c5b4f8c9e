"""Threads for tokenizers: each owner's turn comes, nobody waits in vain, and the model waits for none of it."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch

from support.models.families import D_VOCAB, FAMILIES, N_CTX, build_model, build_tokenizer
from support.servers.engines import SOON
from support.servers.polling import wait_until
from support.servers.servers import running, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import BusyError, DeadlineError, InvalidRequestError, TooLargeError, UnavailableError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.forward.cancellation import AbandonedError, cancellable, raise_if_cancelled
from transparent_llm_server.models.forward.fair_lock import FairLock
from transparent_llm_server.models.forward.tokenization import Tokenization
from transparent_llm_server.scheduling.tokenizing import Tokenizing


@contextmanager
def opened(queue_length: int = 10) -> Iterator[Tokenizing]:
    tokenizing = Tokenizing(queue_length, retry_after_s=1.5)
    try:
        yield tokenizing
    finally:
        tokenizing.close(SOON)


@pytest.fixture
def tokenizing() -> Iterator[Tokenizing]:
    with opened() as tokenizing:
        yield tokenizing


class Held:
    """Work that stays at it until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.go_on.wait(SOON)
        return "done"


@contextmanager
def at_work(tokenizing: Tokenizing, *owners: str) -> Iterator[list[Future[str]]]:
    """Each of these owners has a piece of work under way until the block ends."""
    held = [Held() for _ in owners]
    futures = [tokenizing.submit(owner, work) for owner, work in zip(owners, held, strict=True)]
    assert all(work.begun.wait(SOON) for work in held)
    try:
        yield futures
    finally:
        for work in held:
            work.go_on.set()


# Turns of owners


def test_work_is_done_and_errors_come_back(tokenizing: Tokenizing) -> None:
    assert tokenizing.submit("a", lambda: 3).result(SOON) == 3
    with pytest.raises(ZeroDivisionError):
        tokenizing.submit("a", lambda: 1 // 0).result(SOON)


def test_an_owner_has_one_piece_under_way_and_another_owner_need_not_wait_for_the_rest(tokenizing: Tokenizing) -> None:
    with at_work(tokenizing, "many"):
        more = [tokenizing.submit("many", lambda: "later") for _ in range(5)]
        assert tokenizing.submit("few", lambda: "at once").result(SOON) == "at once"
        assert not any(future.done() for future in more)
    assert [future.result(SOON) for future in more] == ["later"] * 5


def test_owners_have_their_turns_one_after_the_other(tokenizing: Tokenizing) -> None:
    done: list[str] = []
    with at_work(tokenizing, "x", "y"):
        names = ["a1", "a2", "a3", "b1", "c1", "b2"]
        futures = [tokenizing.submit(name[0], lambda name=name: done.append(name)) for name in names]
    for future in futures:
        future.result(SOON)
    assert done.index("b1") < done.index("a2")
    assert done.index("c1") < done.index("a2")
    assert done.index("b2") < done.index("a3")


# More than can wait


def test_who_finds_the_queue_full_is_told_to_come_back() -> None:
    with opened(queue_length=2) as tokenizing, at_work(tokenizing, "a"):
        waiting = [tokenizing.submit("a", lambda: 1) for _ in range(2)]
        with pytest.raises(BusyError, match=r"^2 calls are already waiting for a tokenizer; try again") as refused:
            tokenizing.submit("a", lambda: 1)
        assert (refused.value.reason, refused.value.retry_after_s) == ("BUSY", 1.5)
        assert not any(future.done() for future in waiting)


def test_an_owner_whose_work_fills_the_queue_makes_room_for_others() -> None:
    with opened(queue_length=4) as tokenizing:
        with at_work(tokenizing, "many", "few"):
            many = [tokenizing.submit("many", lambda: "many") for _ in range(4)]
            few = tokenizing.submit("few", lambda: "few")
            with pytest.raises(BusyError):
                many[-1].result(SOON)
            assert not few.done()
        assert [future.result(SOON) for future in (*many[:3], few)] == ["many"] * 3 + ["few"]


def test_what_was_given_up_makes_room_at_once() -> None:
    with opened(queue_length=1) as tokenizing:
        with at_work(tokenizing, "a"):
            assert tokenizing.submit("a", lambda: 1).cancel()
            assert tokenizing.queued == 0
            kept = tokenizing.submit("a", lambda: 2)
        assert kept.result(SOON) == 2


# Giving up


def test_what_was_given_up_before_its_turn_is_never_done(tokenizing: Tokenizing) -> None:
    ran = threading.Event()
    with at_work(tokenizing, "a"):
        assert tokenizing.submit("a", ran.set).cancel()
    tokenizing.submit("a", lambda: None).result(SOON)
    assert not ran.is_set()


def test_work_under_way_that_was_given_up_stops_where_it_looks(tokenizing: Tokenizing) -> None:
    begun, go_on, stopped = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(SOON)
        try:
            raise_if_cancelled()
        except AbandonedError:
            stopped.set()
            raise

    future = tokenizing.submit("a", work)
    assert begun.wait(SOON)
    assert future.cancel()
    go_on.set()
    assert stopped.wait(SOON)
    assert tokenizing.submit("a", lambda: "next").result(SOON) == "next"


class Large:
    """A text, or its tokens."""


@pytest.mark.parametrize("fails", [True, False], ids=["failed", "done"])
def test_nothing_is_kept_of_work_that_is_over(tokenizing: Tokenizing, no_collector: None, fails: bool) -> None:
    kept: list[weakref.ref[Large]] = []

    def work(large: Large) -> None:
        if fails:
            raise InvalidRequestError("too long")

    def call() -> None:
        large = Large()
        kept.append(weakref.ref(large))
        future = tokenizing.submit("a", lambda: work(large))
        try:
            future.result(SOON)
        except InvalidRequestError:
            pass
        finally:
            del future

    call()
    wait_until(lambda: kept[0]() is None)


# The end


def test_what_waits_at_the_end_is_refused_and_nothing_more_is_taken() -> None:
    tokenizing = Tokenizing(10, retry_after_s=1.0)
    with at_work(tokenizing, "a") as (under_way,):
        waiting = tokenizing.submit("a", lambda: 1)
        tokenizing.close(timeout_s=0.0)
        for refused in (waiting.result, lambda _: tokenizing.submit("a", lambda: 1)):
            with pytest.raises(UnavailableError, match="shutting down"):
                refused(SOON)
    assert under_way.result(SOON) == "done"


# A tokenizer that threads take turns at


class SlowTokenizer:
    """One in Python, as nothing is known of: two threads in it at once are an error, and each sentence can be held."""

    def __init__(self) -> None:
        self._inner, self._inside = build_tokenizer(), threading.Lock()
        self.seen: list[str] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self, sentence: str, **settings: Any) -> Any:
        assert self._inside.acquire(blocking=False)
        try:
            self.seen.append(sentence)
            self.begun.set()
            assert self.go_on.wait(SOON)
            return self._inner(sentence, **settings)
        finally:
            self._inside.release()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._inner, memo)

    def __getattr__(self, name: str) -> Any:
        return False if name == "is_fast" else getattr(self._inner, name)


def test_a_tokenizer_of_which_nothing_is_known_is_used_by_one_thread_at_a_time() -> None:
    tokens = Tokenization(SlowTokenizer(), wants_bos=False, n_ctx=N_CTX, d_vocab=D_VOCAB)
    assert not tokens.is_concurrent
    wrong: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                tokens.encode(["The river", "a mill"])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert wrong == []


def test_tokenizing_is_given_up_between_two_sentences() -> None:
    tokenizer = SlowTokenizer()
    tokens = Tokenization(tokenizer, wants_bos=False, n_ctx=N_CTX, d_vocab=D_VOCAB)
    tokenizer.seen.clear()
    with cancellable(lambda: len(tokenizer.seen) < 2), pytest.raises(AbandonedError):
        tokens.encode(["one", "two", "three", "four"])
    assert tokenizer.seen == ["one", "two"]


def test_so_are_the_strings_of_ids() -> None:
    tokens = Tokenization(SlowTokenizer(), wants_bos=False, n_ctx=N_CTX, d_vocab=D_VOCAB)
    answers = iter([True, True, False])
    with cancellable(lambda: next(answers)), pytest.raises(AbandonedError):
        tokens.strings([1, 2, 3])
    assert len(tokens.strings([1, 2, 3])) == 3


def test_a_sentence_that_is_refused_ends_the_work_on_those_behind_it() -> None:
    tokenizer = SlowTokenizer()
    tokens = Tokenization(tokenizer, wants_bos=False, n_ctx=N_CTX, d_vocab=D_VOCAB)
    tokenizer.seen.clear()
    with pytest.raises(TooLargeError, match=r"^sentence 1 has"):
        tokens.encode(["one", "two " * 100, "three"])
    assert len(tokenizer.seen) == 2


def test_far_more_text_than_the_context_has_room_for_is_seen_by_no_tokenizer() -> None:
    tokenizer = SlowTokenizer()
    tokens = Tokenization(tokenizer, wants_bos=False, n_ctx=N_CTX, d_vocab=D_VOCAB)
    tokenizer.seen.clear()
    with pytest.raises(TooLargeError) as refused:
        tokens.encode(["é" * 40_000])
    assert refused.value.message == (
        "sentence 0 has 80000 bytes of text, a context of 64 tokens takes 65536; shorten it or split it, nothing is "
        "truncated silently"
    )
    assert (refused.value.reason, refused.value.metadata) == (
        "TOO_LONG",
        {"sentence": "0", "needed": "80000", "allowed": "65536"},
    )
    assert tokenizer.seen == []


def test_turns_are_taken_in_the_order_of_arrival() -> None:
    turns, order = FairLock(), []
    waiting = threading.Semaphore(0)

    def take(name: str) -> None:
        waiting.release()
        with turns:
            order.append(name)

    with turns:
        threads = []
        for name in "abc":
            threads.append(threading.Thread(target=take, args=(name,)))
            threads[-1].start()
            wait_until(lambda: len(turns._line) == len(threads) + 1)
    for thread in threads:
        thread.join(SOON)
    assert order == ["a", "b", "c"]


def test_whoever_is_not_wanted_leaves_the_line() -> None:
    turns = FairLock()
    with turns, cancellable(lambda: False), pytest.raises(AbandonedError), turns:
        pass
    with turns:
        pass


# A server


@contextmanager
def serving(**settings: Any) -> Iterator[tuple[Any, SlowTokenizer]]:
    tokenizer = SlowTokenizer()
    llm = TransformerLensTransparentLlm("gpt2", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=tokenizer)
    with running(serving={"slow": llm}, **settings) as server:
        try:
            yield server, tokenizer
        finally:
            tokenizer.go_on.set()


@contextmanager
def held_by(address: str, tokenizer: SlowTokenizer, *refusals: type[Exception]) -> Iterator[None]:
    """A call is in the tokenizer until the block ends; then it may end with one of these errors."""
    tokenizer.begun.clear()
    tokenizer.go_on.clear()

    def run() -> None:
        with suppress(*refusals):
            llm.run(["The river"])

    with RemoteTransparentLlm(address, timeout_s=SOON) as llm:
        thread = threading.Thread(target=run)
        thread.start()
        assert tokenizer.begun.wait(SOON)
        try:
            yield
        finally:
            tokenizer.go_on.set()
            thread.join(SOON)


def test_the_model_works_while_the_tokenizer_is_held() -> None:
    with serving() as (server, tokenizer), RemoteTransparentLlm(server.address, timeout_s=SOON) as llm:
        llm.run_tokens([[1, 2, 3]])
        with held_by(server.address, tokenizer):
            with RemoteTransparentLlm(server.address, timeout_s=0.5) as other, pytest.raises(DeadlineError):
                other.run_tokens([[4, 5, 6]])  # computed, but the strings that are answered are the tokenizer's
            wait_until(lambda: len(server._runs) == 2)
            assert llm.residual_in(0).shape[1] == 3
            assert llm.logits().shape[1] == 3  # the model thread's work
            wait_until(lambda: server._engine.busy_s == 0)


def test_a_call_whose_client_has_left_stops_between_two_sentences() -> None:
    with serving() as (server, tokenizer):
        tokenizer.seen.clear()
        tokenizer.begun.clear()
        tokenizer.go_on.clear()
        with RemoteTransparentLlm(server.address, timeout_s=0.3) as llm, pytest.raises(DeadlineError):
            llm.run(["one", "two", "three"])
        tokenizer.go_on.set()
        with RemoteTransparentLlm(server.address, timeout_s=SOON) as llm:
            llm.run(["next"])
        assert tokenizer.seen == ["one", "next"]


def refused(call: Callable[[], object]) -> TooLargeError:
    with pytest.raises(TooLargeError) as refusal:
        call()
    assert refusal.value.reason == "TOO_LONG"
    return refusal.value


def test_too_much_text_is_refused_before_the_tokenizer_sees_any() -> None:
    with serving(max_text_bytes=100, max_sentences_per_run=3) as (server, tokenizer):
        with RemoteTransparentLlm(server.address, timeout_s=SOON) as llm:
            assert llm.server_info().limits.max_text_bytes == 100
            tokenizer.seen.clear()
            error = refused(lambda: llm.run(["é" * 30, "a" * 41]))
            assert error.message == "101 bytes of text at once, this server allows 100; send fewer"
            assert (error.metadata["needed"], error.metadata["allowed"]) == ("101", "100")
            error = refused(lambda: llm.run(["a"] * 4))
            assert error.message == "4 sentences at once, this server allows 3; send fewer"
            assert tokenizer.seen == []
            llm.run(["é" * 30, "a" * 40])


def test_a_request_that_is_far_too_large_is_not_even_parsed() -> None:
    with running(max_text_bytes=100, max_sentences_per_run=3, max_tokens_per_run=50) as server:
        with RemoteTransparentLlm(server.address, timeout_s=SOON) as llm:
            error = refused(lambda: llm.run([""] * 1000))
            assert error.message == "88 sentences or more at once, this server allows 3; send fewer"
            error = refused(lambda: llm.run(["a" * 10_000]))
            assert error.message == "10006 bytes of sentences or tokens at once, this server allows 4444; send fewer"
            assert (
                "bytes of sentences or tokens"
                in refused(lambda: llm.tokens_to_strings(torch.ones(5000).long())).message
            )
            assert refused(lambda: llm.tokens_to_strings(torch.ones(51).long())).metadata["allowed"] == "50"
            error = refused(lambda: llm.run_tokens([[1] * 20, [1], [1]]))
            assert error.message == "60 tokens at once, this server allows 50 (padding included); send fewer"


def test_the_queue_before_the_tokenizers_is_bounded() -> None:
    with (
        serving(queue_length=2, busy_retry_s=2 * SOON) as (server, tokenizer),
        held_by(server.address, tokenizer, BusyError),  # as the three below
    ):

        def wait_in_line(sentence: str) -> None:
            with RemoteTransparentLlm(server.address, timeout_s=SOON) as llm, suppress(BusyError):
                llm.run([sentence])  # which the queue before the model, as short as the other one, may refuse

        threads = [threading.Thread(target=wait_in_line, args=(word,)) for word in ("one", "two", "three")]
        for thread in threads:
            thread.start()
        wait_until(lambda: server._tokenizing.queued == 2)  # and one has the other thread
        with RemoteTransparentLlm(server.address, timeout_s=SOON) as llm, pytest.raises(BusyError) as busy:
            llm.run(["and one"])
        assert busy.value.retry_after_s == 2 * SOON
        tokenizer.go_on.set()
        for thread in threads:
            thread.join(SOON)


def test_long_text_has_the_same_run_and_strings_as_in_process() -> None:
    sentences = ["The river comes down to the mill"] * 100  # more than a call does on its own thread
    with running() as server, RemoteTransparentLlm(server.address, timeout_s=SOON) as llm:
        llm.run(sentences)
        local = tiny().copy()
        local.run(sentences)
        assert torch.equal(llm.tokens(), local.tokens())
        ids = torch.arange(D_VOCAB).repeat(5)
        assert llm.tokens_to_strings(ids) == local.tokens_to_strings(ids)
        with pytest.raises(InvalidRequestError, match="not in the vocabulary"):
            llm.tokens_to_strings(torch.full((2000,), D_VOCAB))
