"""What a lying server, or another user of the machine, can do to an honest server by files that a client keeps."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from support.servers.certificates import Authority
from support.servers.liar import Liar
from support.servers.servers import Watcher, running, tiny
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm_server.app import Server

ROWS = [[1, 2, 3, 4], [5, 6]]


@contextmanager
def opened(address: str, folder: Path, **options: Any) -> Iterator[RemoteTransparentLlm]:
    with RemoteTransparentLlm(address, timeout_s=30, weights_dir=folder, **options) as llm:
        llm.run_tokens(ROWS)
        yield llm


def truth() -> torch.Tensor:
    local = tiny().copy()
    local.run_tokens(ROWS)
    return local.decomposed_ffn_out(0, 1, 2)


def read(server: Server, folder: Path, **options: Any) -> torch.Tensor:
    with opened(server.address, folder, **options) as llm:
        return llm.decomposed_ffn_out(0, 1, 2)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def other_values(message: bytes) -> bytes:
    """Of the same size: every bit of the data is turned."""
    chunk = tensor_pb2.TensorChunk.FromString(message)
    chunk.data = bytes(byte ^ 0xFF for byte in chunk.data)
    return chunk.SerializeToString()


# Digests that are paths


def with_digest(digest: str) -> Liar:
    def run(response: Any) -> Any:
        response.model_digest = digest
        return response

    def info(response: Any) -> Any:
        for model in response.models:
            model.digest = digest
        return response

    return Liar({"Run": run, "ServerInfo": info})


def digests(folder: Path) -> list[str]:
    good = tiny().describe().digest
    return [
        str(folder / "absolute"),
        "../beside",
        "..",
        ".",
        good.upper(),
        good[:-1],
        good + "\n",
        good + "0",
        "é" * 64,
    ]


def test_a_digest_that_could_be_a_path_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    for digest in [*digests(tmp_path), ""]:
        with running(with_digest(digest)) as server:
            with pytest.raises(errors.InternalError, match="not 64 hexadecimal digits"):
                read(server, folder)
    assert files_in(tmp_path) == []


def test_so_is_one_in_a_description(tmp_path: Path) -> None:
    for digest in digests(tmp_path):
        with running(with_digest(digest)) as server, RemoteTransparentLlm(server.address) as llm:
            with pytest.raises(errors.InternalError, match="not 64 hexadecimal digits"):
                llm.server_info()


# Values of a lying server


def test_a_lying_server_fills_no_place_of_an_honest_one(tmp_path: Path) -> None:
    watcher = Watcher()
    with running(Liar({"NeuronOutputs": other_values})) as liar, running(watcher) as honest:
        assert not torch.equal(read(liar, tmp_path), truth())
        assert len(files_in(tmp_path)) == 1
        for _ in range(2):
            assert torch.equal(read(honest, tmp_path), truth())
    assert watcher.names.count("NeuronOutputs") == 1


def test_neither_does_one_that_answered_without_the_certificate(tmp_path: Path) -> None:
    """At the same address: first somebody in the clear, then the server that the user's authority knows."""
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    folder = tmp_path / "kept"
    with running(Liar({"NeuronOutputs": other_values})) as liar:
        address = liar.address
        assert not torch.equal(read(liar, folder), truth())
    for known in (authority, stranger):
        with running(listen=address, **known.issue("localhost").as_server) as honest:
            assert torch.equal(read(honest, folder, tls_ca=str(known.path)), truth())
    assert len(files_in(folder)) == 3


def test_output_vectors_of_another_type_are_refused(tmp_path: Path) -> None:
    def as_integers(message: bytes) -> bytes:
        chunk = tensor_pb2.TensorChunk.FromString(message)
        if chunk.HasField("header"):
            chunk.header.dtype = tensor_pb2.DTYPE_I32
        return chunk.SerializeToString()

    with running(Liar({"NeuronOutputs": as_integers})) as server:
        with pytest.raises(errors.InternalError, match=r"is I32 .* where F32 .* was asked for"):
            read(server, tmp_path)
    assert files_in(tmp_path) == []


# Other users of the machine


def to_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def to_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def writable_by_others(path: Path) -> None:
    path.chmod(0o666)


def of_another_user(path: Path) -> None:
    try:
        os.chown(path, os.geteuid() + 1, -1)
    except PermissionError:
        pytest.skip("only root can give files away")


def huge(path: Path) -> None:
    """A terabyte of nothing, which takes no room."""
    os.truncate(path, 2**40)


def deep(path: Path) -> None:
    """A header that would overflow a parser's stack."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    path.write_bytes((4096).to_bytes(8, "little") + b"[" * 4096 + data[8 + size :])


CHANGES = [to_a_link, to_a_pipe, writable_by_others, of_another_user, huge, deep]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_others_may_have_written_is_not_read(
    change: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher()
    with running(watcher) as server:
        assert torch.equal(read(server, tmp_path), truth())
        (path,) = files_in(tmp_path)
        change(path)
        with caplog.at_level(logging.WARNING, "transparent_llm"):
            assert torch.equal(read(server, tmp_path), truth())
    assert watcher.names.count("NeuronOutputs") == 2
    assert f"{path} cannot be used and is fetched again: " in caplog.text


@pytest.mark.parametrize("depth", [0, 1, 2], ids=["itself", "of a server", "of a model"])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_to_is_neither_read_nor_written(
    depth: int, mode: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, watcher = tmp_path / "kept", Watcher()
    with running(watcher) as server:
        read(server, folder)
        (path,) = files_in(folder)
        opened_to_others = [*path.parents][2 - depth]
        opened_to_others.chmod(mode)
        before = path.stat()
        with caplog.at_level(logging.WARNING, "transparent_llm"):
            assert torch.equal(read(server, folder), truth())
    assert watcher.names.count("NeuronOutputs") == 2
    assert f"cannot keep weights in {folder}: others can write to " in caplog.text
    assert path.stat() == before


def test_the_systems_folder_for_everybodys_files_will_do(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    watcher = Watcher()
    with running(watcher) as server:
        for _ in range(2):
            assert torch.equal(read(server, tmp_path), truth())
    assert watcher.names.count("NeuronOutputs") == 1


def test_what_is_written_is_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with running() as server:
            read(server, tmp_path / "kept")
    finally:
        os.umask(before)
    made = [tmp_path / "kept", *(tmp_path / "kept").rglob("*")]
    assert {oct(path.stat().st_mode & 0o777) for path in made} == {"0o700", "0o600"}


# Its size


def test_the_folder_takes_no_more_than_it_may(tmp_path: Path) -> None:
    """Servers with ever new addresses: what was not read for longest goes."""
    layer_bytes = 256 * 64 * 4
    most = 2 * layer_bytes + 10_000
    for _ in range(4):
        with running() as server:
            assert torch.equal(read(server, tmp_path, weights_dir_bytes=most), truth())
    files = files_in(tmp_path)
    total = sum(path.stat().st_size for path in files)
    print(f"\n{len(files)} files of {total} bytes; {most} are allowed")
    assert len(files) == 2
    assert total <= most
    with running() as server:
        read(server, tmp_path, weights_dir_bytes=layer_bytes)
    assert files_in(tmp_path) == files
