"""Vectors that owners keep: bounds, eviction, age, and the numbers that are told of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transparent_llm.errors import NotFoundError, TooLargeError
from transparent_llm.interventions.kept import KeptVector, kept
from transparent_llm_server.scheduling.vector_store import BYTES_BESIDES, VectorBudget, VectorStore

SIZE = 400 + BYTES_BESIDES


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def vector(name: str, fill: float = 0.0, n: int = 100) -> KeptVector:
    return kept(name, torch.full((n,), float(fill)))


def store(clock: Clock, max_bytes: int = 10 * SIZE, of_owner: int = 4 * SIZE, count: int = 100) -> VectorStore:
    return VectorStore(VectorBudget(max_bytes, of_owner, count, 60.0), clock)


def names(vectors: VectorStore, owner: str) -> list[str]:
    return [each.name for each in vectors.of(owner)]


def test_an_owner_loses_their_own_least_recently_used_first() -> None:
    vectors = store(Clock())
    vectors.put(vector("x"), "bob")
    for n in range(4):
        vectors.put(vector(str(n), n), "alice")
    vectors.get(vector("0", 0).digest, "alice")
    vectors.put(vector("new", 9), "alice")
    assert names(vectors, "alice") == ["0", "2", "3", "new"]
    assert names(vectors, "bob") == ["x"]
    assert vectors.nbytes == 5 * SIZE


def test_all_together_lose_the_least_recently_used_of_whichever_owner() -> None:
    vectors = store(Clock(), max_bytes=3 * SIZE)
    for owner in ("a", "b", "c"):
        vectors.put(vector("v"), owner)
    vectors.get(vector("v").digest, "a")
    vectors.put(vector("v"), "d")
    assert [names(vectors, owner) for owner in "abcd"] == [["v"], [], ["v"], ["v"]]


def test_age_drops_what_nobody_used() -> None:
    clock = Clock()
    vectors = store(clock)
    vectors.put(vector("old", 1), "a")
    vectors.put(vector("used", 2), "a")
    clock.now += 50
    vectors.get(vector("used", 2).digest, "a")
    clock.now += 20
    vectors.expire()
    assert (names(vectors, "a"), len(vectors), vectors.nbytes) == (["used"], 1, SIZE)


def test_two_names_of_one_vector_are_two() -> None:
    vectors = store(Clock())
    for name in ("a", "b"):
        vectors.put(vector(name), "owner")
    assert vectors.drop("a", "owner")
    assert torch.equal(vectors.get(vector("b").digest, "owner"), torch.zeros(100))
    assert vectors.drop("b", "owner")
    with pytest.raises(NotFoundError, match="is kept"):
        vectors.get(vector("b").digest, "owner")
    assert (vectors.nbytes, len(vectors)) == (0, 0)


def test_what_can_never_be_kept_is_refused_and_nothing_is_lost() -> None:
    vectors = store(Clock(), of_owner=2 * SIZE)
    vectors.put(vector("v"), "a")
    with pytest.raises(TooLargeError, match="an owner may keep"):
        vectors.put(vector("v", n=1000), "a")
    assert names(vectors, "a") == ["v"]


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("vwxyz"), st.integers(0, 3), st.sampled_from([10, 100, 300])),
        max_size=40,
    )
)
def test_bounds_hold_and_what_is_told_is_there(puts: list[tuple[str, str, int, int]]) -> None:
    vectors = store(Clock(), max_bytes=5 * SIZE, of_owner=3 * SIZE, count=3)
    for owner, name, fill, n in puts:
        if fill == 3:
            vectors.drop(name, owner)
            continue
        vectors.put(vector(name, fill, n), owner)
        assert name in names(vectors, owner)
        held = [each for who in "ab" for each in vectors.of(who)]
        sizes = {who: sum(4 * each.shape[0] + BYTES_BESIDES for each in vectors.of(who)) for who in "ab"}
        assert vectors.nbytes == sum(sizes.values()) <= 5 * SIZE
        assert max(sizes.values()) <= 3 * SIZE
        assert len(held) == len(vectors)
        assert all(len(vectors.of(who)) <= 3 for who in "ab")
        for who in "ab":
            for each in vectors.of(who):
                assert each.values is not None
                assert torch.equal(vectors.get(each.digest, who), each.values)
