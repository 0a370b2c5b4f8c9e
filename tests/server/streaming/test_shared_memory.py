"""Shared memory: what a server takes part in, what it declines, and who waits for whom."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from transparent_llm import errors
from transparent_llm.client.transport.shared_memory import Ring
from transparent_llm.wire import frames, ring
from transparent_llm.wire.ring import Offer
from transparent_llm_server.streaming.shared_memory import OfferedRing

pytestmark = pytest.mark.skipif(not ring.DIRECTORY.is_dir(), reason="shared memory files are a matter of Linux")

SLOTS, SLOT_BYTES = 4, 2**20


@pytest.fixture
def mine() -> Iterator[Ring]:
    made = Ring()
    yield made
    made.close()


def offer_of(mine: Ring) -> Offer:
    mine.begin()
    return mine.offer


def claimed(offer: Offer) -> bool:
    taken = OfferedRing(offer, lambda: True)
    with contextlib.closing(taken):
        return taken.claim()


def test_the_clients_own_file_is_taken_and_has_no_name_then(mine: Ring) -> None:
    offer = offer_of(mine)
    path = ring.DIRECTORY / offer.name
    assert path.exists()
    assert not mine.is_used
    assert claimed(offer)
    assert not path.exists()
    assert mine.is_used


def test_no_two_calls_get_the_same_file(mine: Ring) -> None:
    offer = offer_of(mine)
    assert [claimed(offer), claimed(offer)] == [True, False]


def test_an_offer_that_was_filled_anew_is_void(mine: Ring) -> None:
    old = offer_of(mine)
    new = offer_of(mine)
    assert [claimed(old), claimed(new)] == [False, True]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nonce", bytes(range(ring.NONCE_BYTES))),
        ("nonce", b""),
        ("name", "transparent-llm-" + "0" * 32),
        ("name", ""),
        ("name", "other"),
        ("slots", 0),
        ("slots", 65),
        ("slot_bytes", 0),
        ("slot_bytes", 2**32 - 1),
    ],
)
def test_what_does_not_fit_is_declined_and_left_alone(mine: Ring, field: str, value: Any) -> None:
    offer = offer_of(mine)
    path = ring.DIRECTORY / offer.name
    assert not claimed(offer._replace(**{field: value}))
    assert path.exists()


@pytest.mark.parametrize("form", ["../tmp/{0}", "./{0}", "{0}/", "{0}\0", "{0}\n", "/dev/shm/{0}"])
def test_a_name_that_is_a_path_is_declined(mine: Ring, form: str) -> None:
    offer = offer_of(mine)
    assert not claimed(offer._replace(name=form.format(offer.name)))


def with_a_high_number(path: str, flags: int) -> int:
    """A file descriptor that no other thread gets, as they get the lowest that is free."""
    low = os.open(path, flags, 0o600)
    try:
        return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 1000)
    finally:
        os.close(low)


def test_a_file_that_was_closed_is_not_taken_for_the_next_one_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transparent_llm.client.transport.shared_memory._private", with_a_high_number)
    with (tmp_path / "another").open("wb") as another:
        closed = Ring()
        number = closed._file.fileno()
        closed.close()
        os.dup2(another.fileno(), number)
        closed.close()
        with pytest.raises(errors.UnavailableError, match="closed file"):
            closed.take(0, memoryview(bytearray(1)))
        assert os.path.sameopenfile(another.fileno(), number)
        os.close(number)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_open_is_declined(mine: Ring, mode: int) -> None:
    offer = offer_of(mine)
    (ring.DIRECTORY / offer.name).chmod(mode)
    assert not claimed(offer)


def test_a_file_of_another_user_is_declined(mine: Ring) -> None:
    offer = offer_of(mine)
    try:
        os.chown(ring.DIRECTORY / offer.name, os.geteuid() + 1, -1)
    except PermissionError:
        pytest.skip("only root can give files away")
    assert not claimed(offer)


def test_a_link_is_declined(mine: Ring, tmp_path: Path) -> None:
    offer = offer_of(mine)
    path = ring.DIRECTORY / offer.name
    path.rename(target := ring.DIRECTORY / f"transparent-llm-{secrets.token_hex(16)}")
    try:
        path.symlink_to(target)
        assert not claimed(offer)
        path.unlink()
        os.link(target, path)
        assert not claimed(offer)
    finally:
        path.unlink()
        target.unlink()


def test_a_pipe_is_declined(mine: Ring) -> None:
    offer = offer_of(mine)
    path = ring.DIRECTORY / offer.name
    path.unlink()
    os.mkfifo(path, 0o600)
    assert not claimed(offer)


def test_pieces_come_out_as_they_went_in(mine: Ring) -> None:
    offer = offer_of(mine)
    with contextlib.closing(OfferedRing(offer, lambda: True)) as taken:
        assert taken.claim()
        offset = 0
        for number in range(3 * SLOTS + 1):
            piece = secrets.token_bytes(SLOT_BYTES - number)
            frame = frames.parse(taken.frame(None, offset, memoryview(piece)))
            assert frame.shared == (number % SLOTS, len(piece))
            assert (frame.offset, bytes(frame.data)) == (offset, b"")
            target = bytearray(len(piece))
            mine.take(frame.shared[0], memoryview(target))
            assert target == piece
            offset += len(piece)


def test_a_server_whose_slots_are_all_full_waits_until_the_client_has_left(mine: Ring) -> None:
    asked = []

    def is_active() -> bool:
        asked.append(None)
        return len(asked) < 3

    with contextlib.closing(OfferedRing(offer_of(mine), is_active)) as taken:
        assert taken.claim()
        for number in range(SLOTS):
            taken.frame(None, number, memoryview(b"x"))
        assert not asked
        with pytest.raises(errors.CancelledError):
            taken.frame(None, SLOTS, memoryview(b"x"))
        assert len(asked) == 3


def test_where_there_is_no_room_the_piece_goes_in_the_message(mine: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    with contextlib.closing(OfferedRing(offer_of(mine), lambda: True)) as taken:
        assert taken.claim()
        monkeypatch.setattr(ring, "write_slot", full)
        assert taken.frame(b"", 5, memoryview(b"data")) == frames.frame(b"", 5, b"data")


def test_a_piece_that_was_truncated_is_an_error_not_zeros(mine: Ring) -> None:
    with pytest.raises(errors.UnavailableError, match="lost"):
        mine.take(3, memoryview(bytearray(SLOT_BYTES)))
