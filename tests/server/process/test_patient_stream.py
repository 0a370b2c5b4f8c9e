"""A stream for the log: whoever writes neither waits nor fails, and what was lost is told."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator

import pytest

from support.servers.engines import SOON
from support.servers.polling import wait_until
from transparent_llm_server.process.patient_stream import PatientStream

LINE = "x" * 999 + "\n"
MORE_THAN_THERE_IS_ROOM = 2 * 2**20 // len(LINE)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Its reading and its writing end; small."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            continue


def stream_to(fd: int) -> PatientStream:
    return PatientStream(fd, lambda count: f"{count} lost\n")


def read_to(fd: int, last: str) -> str:
    """All there is, until this comes."""
    text = ""
    while not text.endswith(last):
        text += os.read(fd, 2**16).decode()
    return text


def test_lines_arrive_in_order(pipe: tuple[int, int]) -> None:
    stream = stream_to(pipe[1])
    for number in range(100):
        stream.write(f"line {number}\n")
    assert read_to(pipe[0], "line 99\n") == "".join(f"line {number}\n" for number in range(100))


def test_what_cannot_be_encoded_is_written_all_the_same(pipe: tuple[int, int]) -> None:
    stream_to(pipe[1]).write("a\udc80é\n")
    assert read_to(pipe[0], "\n") == "a\\udc80é\n"


@pytest.mark.parametrize("blocks", [True, False])
def test_whoever_writes_to_a_pipe_that_nobody_reads_goes_on(pipe: tuple[int, int], blocks: bool) -> None:
    reader, writer = pipe
    os.set_blocking(writer, blocks)
    stream = stream_to(writer)
    written = threading.Thread(target=lambda: [stream.write(LINE) for _ in range(MORE_THAN_THERE_IS_ROOM)])
    written.start()
    written.join(SOON)
    assert not written.is_alive()
    text = read_to(reader, "lost\n")
    kept, lost = text.count(LINE), int(text.splitlines()[-1].removesuffix(" lost"))
    assert kept + lost == MORE_THAN_THERE_IS_ROOM
    assert lost > MORE_THAN_THERE_IS_ROOM // 4
    stream.write("and on\n")
    assert read_to(reader, "on\n") == "and on\n"  # told once


def test_a_full_disk_is_no_error_and_the_lines_are_counted(pipe: tuple[int, int]) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        stream = stream_to(full.fileno())
        for _ in range(3):
            stream.write("lost\n")
        stream.drain(SOON)
        assert stream._lost == 3
        os.dup2(pipe[1], full.fileno())  # there is room again
        stream.write("on\n")
        stream.drain(SOON)
        assert stream._lost == 0
        assert set(os.read(pipe[0], 2**16).decode().splitlines()) == {"on", "3 lost"}


def test_a_reader_that_has_gone_is_no_error(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    stream = stream_to(pipe[1])
    stream.write("for nobody\n")
    stream.drain(SOON)
    assert stream._lost == 1


def test_a_line_that_was_torn_is_ended_before_the_next_one(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    stream = stream_to(writer)
    stream.write("x" * 5000 + "\n")  # more than the pipe takes
    wait_until(lambda: len(os.read(reader, 1)) == 1)
    with open("/dev/full", "wb", buffering=0) as full:
        kept = os.dup(writer)
        os.dup2(full.fileno(), writer)
    read_to(reader, "x")
    stream.drain(SOON)
    os.dup2(kept, writer)
    os.close(kept)
    stream.write("next\n")
    assert read_to(reader, "next\n").endswith("\nnext\n")


def test_its_end_is_not_waited_for_longer_than_that(pipe: tuple[int, int]) -> None:
    stream = stream_to(pipe[1])
    stream.write("x" * 10_000 + "\n")
    stream.drain(0.01)
    read_to(pipe[0], "\n")
    stream.drain(SOON)
