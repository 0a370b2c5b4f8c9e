"""Sentences that an operator offers: which files are taken, and that everyone who may call gets them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.description import DatasetDescription
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config.dataset import datasets_of


def test_the_sentences_are_the_lines_that_are_not_blank(tmp_path: Path) -> None:
    file = tmp_path / "a=b.txt"
    file.write_bytes("\ufeffThe  king \r\n\n \t\n\u738b\u2028x\nlast".encode())
    assert datasets_of([f"kings={file}"]) == {"kings": ("The  king ", "\u738b\u2028x", "last")}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "has 0 lines that are not blank; it must have 1 to 1000"),
        (b" \n\n", "has 0 lines"),
        (b"a\n" * 1001, "has 1001 lines .* split it"),
        (b"a" * (2**20 + 1), "more than 1048576 bytes"),
        (b"abc\xff", "no text in UTF-8 at byte 3"),
    ],
)
def test_files_that_are_no_data_set(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "texts"
    file.write_bytes(data)
    with pytest.raises(InvalidRequestError, match=words):
        datasets_of([f"a={file}"])


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["texts.txt"], "write NAME=FILE"),
        (["=texts.txt"], "write NAME=FILE"),
        (["a="], "write NAME=FILE"),
        (["a b=texts.txt"], "write NAME=FILE"),
        (["a=nowhere.txt"], "cannot read nowhere.txt: No such file"),
        (["a=/dev/zero"], "not a regular file"),
        (["a={pipe}"], "not a regular file"),
        (["a={file}", "a={file}"], "two data sets are named a"),
    ],
)
def test_flags_that_name_no_data_set(tmp_path: Path, texts: list[str], words: str) -> None:
    file, pipe = tmp_path / "texts", tmp_path / "pipe"
    file.write_text("one")
    os.mkfifo(pipe)
    with pytest.raises(InvalidRequestError, match=words):
        datasets_of([text.format(file=file, pipe=pipe) for text in texts])


def test_a_server_offers_them_to_whoever_may_call(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("What say you?\nMy lord, the king\n")
    (tmp_path / "two").write_text("x\n" * 1000)
    datasets = (f"one={tmp_path / 'one'}", f"two={tmp_path / 'two'}")
    with running(datasets=datasets) as server, RemoteTransparentLlm(server.address) as llm:
        (tmp_path / "one").unlink()  # it was read at the start
        assert llm.server_info().datasets == (DatasetDescription("one", 2), DatasetDescription("two", 1000))
        assert llm.dataset("one") == ["What say you?", "My lord, the king"]
        assert llm.dataset("two") == ["x"] * 1000
        with pytest.raises(InvalidRequestError, match="there is no data set 'three'; there are one, two"):
            llm.dataset("three")
        llm.run(llm.dataset("one"))
        assert llm.batch_size() == 2


def test_a_server_without_any_says_so() -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        assert llm.server_info().datasets == ()
        with pytest.raises(InvalidRequestError, match="there are none: the operator offers them with --dataset"):
            llm.dataset("one")
