"""Sentences that an operator offers: files of text, read once, at the start."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from transparent_llm.description import MOST_SENTENCES
from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import quoted

_FORM = "NAME=FILE, where a NAME has up to 128 letters, digits, '.', '_' and '-'"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOST_BYTES = 2**20


def datasets_of(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The sentences of files by name, from `NAME=FILE`: the lines that are not blank.

    Raises:
        InvalidRequestError: one is not written as it must be, two have one name, or a file cannot be read, is too large
            or no text in UTF-8, or has no sentence or too many.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, _, file = text.partition("=")
        if not file or not _NAME.fullmatch(name):
            raise InvalidRequestError(f"data set {quoted(text)}: write {_FORM}")
        if name in found:
            raise InvalidRequestError(f"two data sets are named {name}")
        found[name] = _sentences(name, Path(file))
    return found


def _sentences(name: str, path: Path) -> tuple[str, ...]:
    try:
        text = _read(path).decode("utf-8-sig")
    except OSError as error:
        raise InvalidRequestError(f"data set {name}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"data set {name}: {path} is no text in UTF-8 at byte {error.start}") from None
    lines = tuple(line for line in text.replace("\r\n", "\n").split("\n") if line.strip())
    if not 0 < len(lines) <= MOST_SENTENCES:
        raise InvalidRequestError(
            f"data set {name}: {path} has {len(lines)} lines that are not blank; it must have 1 to {MOST_SENTENCES}: "
            "split it into several data sets"
        )
    return lines


def _read(path: Path) -> bytes:
    """Without waiting at a pipe for somebody who writes."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidRequestError(f"{path} is not a regular file: name one; a link to one will do")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InvalidRequestError(f"{path} has more than {_MOST_BYTES} bytes: split it into several data sets")
    return data
