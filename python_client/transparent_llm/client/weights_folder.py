"""Output vectors of neurons, and scores of heads, in files, for later processes: each server's in a folder of its own.

A model's digest is what a server says, and one that lies could fill the place of another's model with its own values.
So a server's folder is named by its address and by whom its certificate is trusted, and the model's within it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import torch

from transparent_llm.client.config import SYSTEM_CA, ClientConfig
from transparent_llm.wire import dtypes
from transparent_llm.wire.digests import DIGEST
from transparent_llm.wire.frames import bytes_of

log = logging.getLogger("transparent_llm")

_LARGEST_HEADER = 4096
"""Bytes of a file's header, which has one tensor and its checksum."""

_SERVER = re.compile(r"[0-9a-f]{32}")
_Opener = Callable[[str, int], int]
_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Key(NamedTuple):
    """Which weights, or scores made of weights alone, are kept."""

    digest: str
    """Of the model that they are of."""

    name: str
    """Of a file."""

    @classmethod
    def of_neurons(cls, digest: str, layer: int, start: int, stop: int) -> Key:
        """Output vectors of neurons `start` to before `stop` of a layer."""
        return cls(digest, f"layer{layer}_{start}_{stop}")

    @classmethod
    def of_heads(cls, digest: str, method: str, request: bytes) -> Key:
        """What a request for weights of heads brings: it has the arguments, and the slices."""
        return cls(digest, f"{method}_{hashlib.sha256(request).hexdigest()}")


class WeightsFolder:
    """The files of one server. They, and the folders around them, must be this user's, and nobody else may write there.

    Files that were not read for longest go when all servers' together would take more than the limit.
    """

    def __init__(self, folder: Path, config: ClientConfig) -> None:
        self._folder = folder
        self._config = config
        self._max_bytes = config.weights_dir_bytes

    def load(self, key: Key, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor | None:
        """What an earlier process saved, if it is whole, of this shape and type, and of nobody else."""
        path = self._path(key)
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(self._opened(key.digest))
            except OSError:
                return None  # nothing was saved there; or saving will say what is wrong
            try:
                file = stack.enter_context(FileIO(path.name, opener=_reading(folder)))
                return _rows(file, shape, dtype)
            except FileNotFoundError:
                return None
            except (OSError, ValueError, RecursionError) as error:
                log.warning("%s cannot be used and is fetched again: %s", path, error)
                return None

    def save(self, key: Key, rows: torch.Tensor) -> None:
        """Write beside, then rename: another process sees all of it or nothing. A failure is only warned of."""
        name = self._path(key).name
        beside = f"{name}.{os.getpid()}.{uuid.uuid4().hex}"
        header = _header(rows)
        if rows.nbytes + len(header) > self._max_bytes:
            return
        try:
            with self._opened(key.digest, make=True) as folder:
                self._make_room(rows.nbytes + len(header))
                try:
                    with FileIO(beside, "x", opener=_writing(folder)) as file:
                        _write(file, header, bytes_of(rows))
                    os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(beside, dir_fd=folder)
                    raise
        except OSError as error:
            log.warning("cannot keep weights in %s: %s", self._folder, error)

    def _path(self, key: Key) -> Path:
        """For messages, and its last part for use."""
        assert DIGEST.fullmatch(key.digest), "what is no digest may be a path"
        return self._folder / self._server() / key.digest / f"{key.name}.safetensors"

    def _server(self) -> str:
        """Names who is believed: an address, by whose certificate. Without TLS whoever answers there is."""
        trusted = self._config.tls_ca or ""
        if trusted not in ("", SYSTEM_CA):
            with contextlib.suppress(OSError):
                trusted = hashlib.sha256(Path(trusted).read_bytes()).hexdigest()
        return hashlib.sha256(f"{self._config.target}\n{trusted}".encode()).hexdigest()[:32]

    @contextmanager
    def _opened(self, digest: str, *, make: bool = False) -> Iterator[int]:
        """The folder of one model, open: nobody can put another one in its place meanwhile.

        Raises:
            OSError: it is not there, or others could write to it.
        """
        if make:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as stack:
            inner = _entered(stack, str(self._folder), None)
            for name in (self._server(), digest):
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=inner)
                inner = _entered(stack, name, inner)
            yield inner

    def _make_room(self, nbytes: int) -> None:
        """Remove what was not read for longest, of all servers, until so much more fits."""
        files = sorted(_files(self._folder))
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total + nbytes <= self._max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                path.unlink()
            total -= size


def _entered(stack: ExitStack, name: str, within: int | None) -> int:
    """A folder, open until the stack ends. Only the outermost may be a link, and of the system with its sticky bit."""
    follow = 0 if within is None else os.O_NOFOLLOW
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow, dir_fd=within)
    stack.callback(os.close, opened)
    found = os.fstat(opened)
    is_shared = within is None and bool(found.st_mode & stat.S_ISVTX)
    if found.st_uid != os.geteuid() and not (is_shared and found.st_uid == 0):
        raise PermissionError(f"{name} belongs to another user")
    if found.st_mode & _OF_OTHERS and not is_shared:
        raise PermissionError(f"others can write to {name} (mode {stat.S_IMODE(found.st_mode):o}): chmod go-w {name}")
    return opened


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each was read last, its bytes, and where it is."""
    for server in folder.iterdir():
        if not _SERVER.fullmatch(server.name) or server.is_symlink():
            continue
        for model in server.iterdir():
            if not DIGEST.fullmatch(model.name) or model.is_symlink():
                continue
            for file in model.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found = file.lstat()
                    if stat.S_ISREG(found.st_mode):
                        yield found.st_mtime, found.st_size, file


def _rows(file: FileIO, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """The only tensor of a file.

    Raises:
        ValueError: it is another's, damaged, or of another shape or type. None of it is read that is not wanted.
    """
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _OF_OTHERS:
        raise ValueError("it is not a regular file of this user alone")
    header_bytes = int.from_bytes(_read(file, 8), "little")
    if header_bytes > _LARGEST_HEADER or found.st_size != 8 + header_bytes + math.prod(shape) * dtype.itemsize:
        raise ValueError("its size does not match what is kept in it")
    rows = torch.empty(tuple(shape), dtype=dtype)
    header = json.loads(_read(file, header_bytes))
    if not isinstance(header, dict) or header.get("rows") != _described(rows):
        raise ValueError("it is damaged")
    _read_into(file, bytes_of(rows))
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or metadata.get("sha256") != _checksum(rows):
        raise ValueError("it is damaged")
    os.utime(file.fileno())
    return rows


def _header(rows: torch.Tensor) -> bytes:
    """What stands before the data of a safetensors file of these."""
    header = {"__metadata__": {"sha256": _checksum(rows)}, "rows": _described(rows)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _described(rows: torch.Tensor) -> dict[str, object]:
    return {"dtype": dtypes.name(rows.dtype), "shape": list(rows.shape), "data_offsets": [0, rows.nbytes]}


def _checksum(rows: torch.Tensor) -> str:
    """Of shape, type and elements."""
    digest = hashlib.sha256(f"{tuple(rows.shape)} {rows.dtype} ".encode())
    digest.update(bytes_of(rows))
    return digest.hexdigest()


def _read(file: FileIO, n_bytes: int) -> bytes:
    data = bytearray(n_bytes)
    _read_into(file, memoryview(data))
    return bytes(data)


def _read_into(file: FileIO, target: memoryview) -> None:
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])
        if not count:
            raise ValueError("it is truncated")
        done += count


def _write(file: FileIO, *parts: bytes | memoryview) -> None:
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[file.write(left) :]


def _reading(folder: int) -> _Opener:
    return lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)


def _writing(folder: int) -> _Opener:
    return lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600, dir_fd=folder)
