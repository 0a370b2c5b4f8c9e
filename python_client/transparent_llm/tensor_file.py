"""A file of tensors: written through links, into pipes and character devices, never over anything else."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import torch

from transparent_llm.errors import InvalidRequestError

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a block device", stat.S_IFSOCK: "a socket"}


def write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bool:
    """Write them as safetensors; whether that made a file that stays.

    What is there keeps its mode and its owner, and a link stays a link: nothing is put in its place.

    Raises:
        InvalidRequestError: it cannot be written, or is something that is not to be written over.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save

    try:
        data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=dict(metadata))
        if path.exists():
            _require_writable(path, path.stat().st_mode)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as file:
            mode = os.fstat(file.fileno()).st_mode  # of what was opened, whatever was there before
            _require_writable(path, mode)
            if stat.S_ISREG(mode):
                file.truncate(0)
            file.write(data)
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InvalidRequestError):
            raise
        raise InvalidRequestError(f"cannot write {path}: {error}") from error
    return stat.S_ISREG(mode)


def _require_writable(path: Path, mode: int) -> None:
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise InvalidRequestError(f"cannot write {path}: it is {kind}, which is not written over; name a file")
