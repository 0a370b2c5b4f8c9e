"""What is kept: within a limit in bytes, the least recently used goes first."""

from __future__ import annotations

import random
import threading
from collections.abc import Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transparent_llm.client.cache import ByteLimitedCache

Cache = ByteLimitedCache[str, bytes]


def cache_of(max_bytes: int) -> Cache:
    return ByteLimitedCache(max_bytes, len)


def filled(max_bytes: int, keys: str, size: int) -> Cache:
    cache = cache_of(max_bytes)
    for key in keys:
        assert cache.put(key, key.encode() * size)
    return cache


def kept(cache: Cache, keys: str) -> str:
    return "".join(key for key in keys if cache.get(key) is not None)


# What is kept


def test_an_empty_cache_has_nothing() -> None:
    cache = cache_of(100)
    assert cache.get("a") is None
    assert cache.nbytes == 0


def test_a_value_that_was_put_is_there() -> None:
    cache, value = cache_of(100), b"value"
    assert cache.put("a", value)
    assert cache.get("a") is value
    assert cache.get("b") is None
    assert cache.nbytes == 5


def test_the_oldest_goes_first() -> None:
    cache = filled(40, "abcdef", 10)
    assert kept(cache, "abcdef") == "cdef"
    assert cache.nbytes == 40


def test_what_was_used_stays() -> None:
    cache = filled(40, "abcd", 10)
    cache.get("a")
    cache.put("e", b"e" * 10)
    assert kept(cache, "abcde") == "acde"


def test_what_was_looked_for_in_vain_changes_nothing() -> None:
    cache = filled(40, "abcd", 10)
    cache.get("x")
    cache.put("e", b"e" * 10)
    assert kept(cache, "abcde") == "bcde"


def test_one_large_value_pushes_out_several() -> None:
    cache = filled(40, "abcdefgh", 5)
    cache.put("i", b"i" * 10)
    assert kept(cache, "abcdefghi") == "cdefghi"


def test_the_limit_may_be_reached_but_not_passed() -> None:
    cache = filled(40, "abcd", 10)
    assert cache.nbytes == 40
    cache.put("e", b"e")
    assert kept(cache, "abcde") == "bcde"
    assert cache.nbytes == 31


# A quarter


@pytest.mark.parametrize(("max_bytes", "largest"), [(40, 10), (43, 10), (44, 11), (4, 1), (3, 0), (0, 0)])
def test_a_value_may_take_a_quarter(max_bytes: int, largest: int) -> None:
    cache = cache_of(max_bytes)
    assert cache.largest == largest
    assert cache.put("a", b"a" * largest) is (largest > 0)
    assert not cache.put("b", b"b" * (largest + 1))
    assert cache.nbytes == largest


def test_what_is_not_kept_pushes_nothing_out() -> None:
    cache = filled(40, "abcd", 10)
    assert not cache.put("e", b"e" * 11)
    assert kept(cache, "abcde") == "abcd"


def test_keeps_says_what_put_does() -> None:
    cache = cache_of(40)
    assert [cache.keeps(size) for size in (0, 1, 10, 11)] == [False, True, True, False]


def test_a_value_without_bytes_is_not_kept() -> None:
    cache = cache_of(40)
    assert not cache.put("a", b"")
    assert cache.get("a") is None


def test_with_a_limit_of_zero_nothing_is_kept() -> None:
    cache = cache_of(0)
    assert not cache.put("a", b"a")
    assert not cache.put("b", b"")
    assert cache.nbytes == 0
    assert cache.get("a") is None


# Replaced and forgotten


def test_a_second_value_takes_the_place_of_the_first() -> None:
    cache = filled(40, "ab", 10)
    cache.put("a", b"new")
    assert cache.get("a") == b"new"
    assert cache.nbytes == 13


def test_a_replaced_value_counts_as_used() -> None:
    cache = filled(40, "abcd", 10)
    cache.put("a", b"A" * 10)
    cache.put("e", b"e" * 10)
    assert kept(cache, "abcde") == "acde"


def test_a_value_that_is_too_large_leaves_the_one_before() -> None:
    cache = filled(40, "a", 10)
    assert not cache.put("a", b"A" * 11)
    assert cache.get("a") == b"a" * 10


def test_what_belongs_together_is_forgotten_together() -> None:
    cache = cache_of(100)
    keys = [("one", 1), ("two", 1), ("one", 2)]
    for key in keys:
        cache.put(key, b"x" * 5)

    def is_of_one(key: Hashable) -> bool:
        return isinstance(key, tuple) and key[0] == "one"

    cache.forget(is_of_one)
    assert [cache.get(key) for key in keys] == [None, b"x" * 5, None]
    assert cache.nbytes == 5
    cache.forget(lambda _: True)
    assert cache.nbytes == 0


# Any use, any number of threads


@given(st.integers(0, 60), st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 16)), max_size=60))
@settings(deadline=None)
def test_any_use_agrees_with_a_plain_list(max_bytes: int, steps: list[tuple[str, int | None]]) -> None:
    """The model: pairs of key and value, the least recently used first."""
    cache, model = cache_of(max_bytes), dict[str, bytes]()
    for key, size in steps:
        if size is None:
            if key in model:
                model[key] = model.pop(key)
            assert cache.get(key) == model.get(key)
            continue
        value = key.encode() * size
        fits = 0 < size <= max_bytes // 4
        assert cache.put(key, value) is fits
        if fits:
            model.pop(key, None)
            model[key] = value
            while sum(map(len, model.values())) > max_bytes:
                del model[next(iter(model))]
        assert cache.nbytes == sum(map(len, model.values())) <= max_bytes
    assert {key: cache.get(key) for key in "abcdef"} == {key: model.get(key) for key in "abcdef"}


def use(cache: Cache, seed: int, barrier: threading.Barrier, failures: list[str]) -> None:
    choice = random.Random(seed)
    barrier.wait(30)
    for _ in range(3000):
        key, action = choice.randrange(40), choice.random()
        if action < 0.5:
            cache.put(key, bytes([key]) * choice.randrange(1, 260))
        elif action < 0.98:
            value = cache.get(key)
            if value is not None and set(value) != {key}:
                failures.append(f"{key} gave {set(value)}")
        else:
            cache.forget(lambda held, key=key: held == key)  # type: ignore[misc]
        if cache.nbytes > 1500:  # one value more while it makes room
            failures.append(f"{cache.nbytes} bytes")


def test_many_threads_leave_the_sum_of_what_is_there() -> None:
    cache, barrier, failures = cache_of(1000), threading.Barrier(8), list[str]()
    threads = [threading.Thread(target=use, args=(cache, seed, barrier, failures)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    left = [value for value in map(cache.get, range(40)) if value is not None]
    assert cache.nbytes == sum(map(len, left)) <= 1000
    cache.forget(lambda _: True)
    assert cache.nbytes == 0
