"""Sentences that an operator offers: files of text, read once, at the start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transparent_llm.description import MOST_SENTENCES
from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import quoted
from transparent_llm_server.config import plain_file
from transparent_llm_server.config.name import NAME

_FORM = "NAME=FILE, where a NAME has up to 128 letters, digits, '.', '_' and '-'"
_SPLIT = "split it into several data sets"
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
        if not file or not NAME.fullmatch(name):
            raise InvalidRequestError(f"data set {quoted(text)}: write {_FORM}")
        if name in found:
            raise InvalidRequestError(f"two data sets are named {name}")
        found[name] = _sentences(name, Path(file))
    return found


def _sentences(name: str, path: Path) -> tuple[str, ...]:
    try:
        text = plain_file.read(path, _MOST_BYTES, _SPLIT).decode("utf-8-sig")
    except OSError as error:
        raise InvalidRequestError(f"data set {name}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"data set {name}: {path} is no text in UTF-8 at byte {error.start}") from None
    lines = tuple(line for line in text.replace("\r\n", "\n").split("\n") if line.strip())
    if not 0 < len(lines) <= MOST_SENTENCES:
        raise InvalidRequestError(
            f"data set {name}: {path} has {len(lines)} lines that are not blank; it must have 1 to {MOST_SENTENCES}: "
            f"{_SPLIT}"
        )
    return lines
