"""The report of what edits did, over the wire: as local, whether the server has the unedited run or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.models.given import ContractOnly
from support.servers.servers import Watcher, running, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError, NotFoundError, NotSupportedError, TooLargeError
from transparent_llm.interventions import Effects, head, residual_in, scale, zero

ROWS, OTHER = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7]], [[11, 12, 13], [19, 18, 17, 16]]
EDITS = [zero(head(0, 1), rows=[0]), scale(residual_in(1), 1.0)]


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def llm(watcher: Watcher) -> Iterator[RemoteTransparentLlm]:
    with running(watcher) as server, RemoteTransparentLlm(server.address) as found:
        found.server_info()
        yield found


def local() -> Effects:
    twin = tiny().copy()
    twin.run_tokens(ROWS, edits=EDITS)
    return twin.effects()


def test_the_report_is_that_of_the_local_object(llm: RemoteTransparentLlm, watcher: Watcher) -> None:
    llm.run_tokens(ROWS, edits=EDITS)
    watcher.calls.clear()
    assert llm.effects() == local()
    assert watcher.names == ["CompareRuns", "Run", "CompareRuns"]  # the unedited run was not there
    assert "no effect: none of 640 elements changed" in str(llm.effects())
    assert len(watcher.names) == 3  # it is asked for once


def test_where_the_unedited_run_is_stored_it_takes_one_call(llm: RemoteTransparentLlm, watcher: Watcher) -> None:
    other = llm.copy()
    other.run_tokens(ROWS)
    llm.run_tokens(ROWS, edits=EDITS)
    watcher.calls.clear()
    assert llm.effects() == local()
    assert watcher.names == ["CompareRuns"]
    assert llm.compare(other) == local().rows
    assert llm.compare(llm)[0].kl == 0.0


def test_runs_that_the_server_lost_are_made_again(llm: RemoteTransparentLlm) -> None:
    other = llm.copy()
    other.run_tokens(ROWS)
    llm.run_tokens(ROWS, edits=EDITS)
    for each in (llm, other):
        each.release()
    assert llm.effects() == local()
    for each in (llm, other):
        each.release()
    assert llm.compare(other) == local().rows
    other.release()
    assert llm.compare(other) == local().rows


def test_without_rerun_the_unedited_run_is_made_but_nothing_that_was_lost() -> None:
    with running() as server, RemoteTransparentLlm(server.address, rerun=False) as llm:
        llm.run_tokens(ROWS, edits=EDITS)
        assert llm.effects() == local()
        other = llm.copy()
        other.run_tokens(OTHER)
        other.release()
        with pytest.raises(NotFoundError, match="was not found"):
            llm.compare(other)


def test_a_run_without_edits_has_none_and_needs_no_call(llm: RemoteTransparentLlm, watcher: Watcher) -> None:
    llm.run_tokens(ROWS)
    watcher.calls.clear()
    assert llm.effects() == Effects((), ())
    assert watcher.names == []


def test_what_cannot_be_compared_is_refused(llm: RemoteTransparentLlm) -> None:
    llm.run_tokens(ROWS)
    with pytest.raises(InvalidRequestError, match="an object of the same server with a current run, got Transformer"):
        llm.compare(tiny())
    other = llm.copy()
    other.run_tokens(ROWS[:1])
    with pytest.raises(InvalidRequestError, match="a run of 2 rows and one of 1"):
        llm.compare(other)
    with running(serving={"given": ContractOnly(tiny().copy())}) as server, RemoteTransparentLlm(server.address) as one:
        one.run(["a"])
        with pytest.raises(NotSupportedError, match="runs of ContractOnly cannot be compared"):
            one.compare(one)


def test_too_much_work_is_refused_with_the_numbers() -> None:
    with running(max_read_work=100) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS, edits=EDITS)
        with pytest.raises(TooLargeError, match="at most 100 for one answer: ask for fewer rows in one run"):
            llm.effects()
