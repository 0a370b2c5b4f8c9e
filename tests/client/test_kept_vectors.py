"""Vectors that are kept under names: they mean their numbers, are sent again when lost, and are one owner's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from support.servers.owners import BearerTokenFile
from support.servers.servers import Watcher, running, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError, NotFoundError, TooLargeError
from transparent_llm.interventions import (
    Intervention,
    KeptVector,
    add,
    clamp,
    literal,
    project,
    residual_in,
    set_to,
    swap,
    unembedding,
)
from transparent_llm_server.config.server import ServerConfig

ROWS = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7]]
V = torch.linspace(-1.5, 2, 64).sin()
W = torch.linspace(0, 3, 64).cos()
SITE = residual_in(1)


def edits(v: Any, w: Any) -> list[Intervention]:
    return [
        add(SITE, v, 2.0, positions="last"),
        set_to(SITE, w, positions=[0]),
        project(SITE, v, 0.5, positions=[1]),
        clamp(SITE, w, -0.1, 0.1, positions=[1]),
        swap(SITE, v, w, positions=[2]),
        add(residual_in(0), v - w, positions=[1])
        if isinstance(v, KeptVector)
        else add(residual_in(0), literal(v) - literal(w), positions=[1]),
    ]


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def llm(watcher: Watcher) -> Iterator[RemoteTransparentLlm]:
    with running(watcher) as server, RemoteTransparentLlm(server.address) as found:
        found.server_info()
        yield found


def test_a_kept_vector_means_its_numbers(llm: RemoteTransparentLlm) -> None:
    v, w = llm.keep_vector("v", V), llm.keep_vector("some other", W.double())
    llm.run_tokens(ROWS, edits=edits(V, W.double()))
    name, logits = llm.run_id(), llm.logits()
    llm.run_tokens(ROWS, edits=edits(v, w))
    assert llm.run_id() == name
    assert llm.effects()[0].changed > 100
    llm.release()
    llm.run_tokens(ROWS, edits=edits(v, w))
    assert torch.equal(llm.logits(), logits)
    twin = tiny().copy()
    twin.run_tokens(ROWS, edits=edits(twin.keep_vector("v", V), twin.keep_vector("w", W.double())))
    assert torch.equal(twin.logits(), logits)
    assert twin.effects().edits == llm.effects().edits
    found = llm.kept_vectors()
    assert list(found) == ["some other", "v"]
    assert (found["v"].digest, found["v"].shape, found["v"].dtype) == (v.digest, (64,), torch.float32)
    llm.run_tokens(ROWS, edits=edits(found["v"], found["some other"]))  # who has the name needs no numbers
    assert llm.run_id() == name


def test_the_digest_is_that_of_the_schema(llm: RemoteTransparentLlm) -> None:
    made = llm.keep_vector("x", torch.stack([V, W]))
    assert made.digest == hashlib.sha256(b"F32 [2, 64] " + torch.stack([V, W]).numpy().tobytes()).hexdigest()
    assert tiny().copy().keep_vector("y", torch.stack([V, W])).digest == made.digest


def test_what_the_server_lost_is_sent_again(llm: RemoteTransparentLlm, watcher: Watcher) -> None:
    v, w = llm.keep_vector("v", V), llm.keep_vector("w", W)
    llm.run_tokens(ROWS, edits=edits(v, w))
    name = llm.run_id()
    assert (llm.drop_vector("v"), llm.drop_vector("w"), llm.drop_vector("w")) == (True, True, False)
    llm.release()
    watcher.calls.clear()
    wanted = llm.copy()
    wanted.run_tokens(ROWS, edits=edits(v, w))
    assert wanted.run_id() == name
    assert watcher.names == ["Run", "KeepVector", "Run", "KeepVector", "Run"]
    for vector in ("v", "w"):
        llm.drop_vector(vector)
    llm.release()
    assert torch.equal(llm.logits(), wanted.logits())  # a run that is lost brings them, too


def test_what_cannot_be_sent_again_is_an_error(llm: RemoteTransparentLlm) -> None:
    llm.keep_vector("v", V)
    found = llm.kept_vectors()["v"]
    llm.drop_vector("v")
    with pytest.raises(NotFoundError, match="is kept: never sent") as caught:
        llm.run_tokens(ROWS, edits=[add(SITE, found, positions="last")])
    assert (caught.value.reason, caught.value.metadata["digest"]) == ("VECTOR_NOT_FOUND", found.digest)
    with pytest.raises(InvalidRequestError, match="its numbers are not here"):
        tiny().copy().run_tokens(ROWS, edits=[add(SITE, found, positions="last")])
    with RemoteTransparentLlm(llm._config.target, rerun=False) as once:
        kept = once.keep_vector("v", V)
        once.drop_vector("v")
        with pytest.raises(NotFoundError, match="is kept"):
            once.run_tokens(ROWS, edits=[add(SITE, kept, positions="last")])


def test_a_name_stands_for_its_newest_vector_and_edits_for_theirs(llm: RemoteTransparentLlm) -> None:
    old, new = llm.keep_vector("v", V), llm.keep_vector("v", W)
    assert llm.kept_vectors()["v"].digest == new.digest != old.digest
    names = []
    for vector in (old, new, V, W):
        llm.run_tokens(ROWS, edits=[add(SITE, vector, positions="last")])
        names.append(llm.run_id())
    assert names[:2] == names[2:]
    assert names[0] != names[1]


@pytest.mark.parametrize("make", [lambda llm: llm, lambda _: tiny().copy()])
def test_what_is_no_vector_is_refused(llm: RemoteTransparentLlm, make: Any) -> None:
    one = make(llm)
    before = one.kept_vectors()
    for name in ("", "x" * 129, "a\nb", "\u202e"):
        with pytest.raises(InvalidRequestError, match="1 to 128 printable characters"):
            one.keep_vector(name, V)
    with pytest.raises(InvalidRequestError, match="is a str, got int 3"):
        one.keep_vector(3, V)
    with pytest.raises(InvalidRequestError, match="not finite"):
        one.keep_vector("v", V / 0)
    with pytest.raises(InvalidRequestError, match="a vector is floating numbers"):
        one.keep_vector("v", torch.ones(3, dtype=torch.int64))
    with pytest.raises(InvalidRequestError, match="numbers are kept, got Unembedding"):
        one.keep_vector("v", unembedding(3))
    with pytest.raises(TooLargeError, match="a vector of 262145 elements, at most 262144"):
        one.keep_vector("v", torch.zeros(2**18 + 1))
    assert one.kept_vectors() == before


def test_of_one_run_they_are_no_more_than_a_request_could_bring(llm: RemoteTransparentLlm) -> None:
    kept = [llm.keep_vector(str(n), torch.full((2**18,), float(n))) for n in range(5)]
    with pytest.raises(TooLargeError, match="use kept vectors of 5242880 bytes, at most 4194304 can be"):
        llm.run_tokens(ROWS, edits=[add(SITE, vector, positions="last") for vector in kept])


def test_the_limits_are_told_and_are_those_of_the_settings() -> None:
    with running(vector_store_bytes=2**21, vector_bytes_per_owner=2**30, vectors_per_owner=3) as server:
        with RemoteTransparentLlm(server.address) as llm:
            limits = llm.server_info().limits
            assert (limits.vector_store_bytes, limits.vector_bytes_per_owner) == (2**21, 2**21)
            assert (limits.vectors_per_owner, limits.max_vector_elements) == (3, 2**18)
            for n in range(5):
                llm.keep_vector(str(n), V)
            assert list(llm.kept_vectors()) == ["2", "3", "4"]
            llm.keep_vector("large", torch.zeros(2**18))
            llm.keep_vector("larger", torch.zeros(2**18))
            assert list(llm.kept_vectors()) == ["larger"]
    assert (ServerConfig().vector_store_bytes, ServerConfig().vectors_per_owner) == (2**26, 1024)
    with running(vectors_per_owner=0) as server, RemoteTransparentLlm(server.address) as llm:
        with pytest.raises(TooLargeError, match="an owner may keep 0 here"):
            llm.keep_vector("v", V)


def test_nobody_reaches_a_vector_of_somebody_else(tmp_path: Path) -> None:
    tokens = BearerTokenFile(tmp_path / "tokens", "alice", "bob")
    with running(tokens_file=tokens.path, vectors_per_owner=2) as server:
        alice, bob = (
            RemoteTransparentLlm(server.address, token=tokens.bearer_tokens[name]) for name in ("alice", "bob")
        )
        with alice, bob:
            alice.keep_vector("v", V)
            hers = alice.kept_vectors()["v"]  # without its numbers, so that he has only the digest
            assert bob.kept_vectors() == {}
            with pytest.raises(NotFoundError, match="is kept: never sent") as caught:
                bob.run_tokens(ROWS, edits=[add(SITE, hers, positions="last")])
            nobodys = KeptVector("v", "0" * 64, torch.float32, (64,))
            with pytest.raises(NotFoundError) as other:
                bob.run_tokens(ROWS, edits=[add(SITE, nobodys, positions="last")])
            assert str(caught.value).replace(hers.digest, "X") == str(other.value).replace("0" * 64, "X")
            assert not bob.drop_vector("v")
            for n in range(5):  # his many push out his own
                bob.keep_vector(f"{n}", W + n)
            assert bob.keep_vector("v", W).digest != hers.digest
            assert alice.kept_vectors()["v"].digest == hers.digest
            alice.run_tokens(ROWS, edits=[add(SITE, hers, positions="last")])
