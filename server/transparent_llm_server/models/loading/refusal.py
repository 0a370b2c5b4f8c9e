"""One sentence of a load that failed: of what other libraries say, and of names that a stranger's files hold."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from transparent_llm.errors import InvalidRequestError, ModelRefusedError, TransparentLlmError

_NAMED = 3
"""Of many names, so many are told."""

_LONGEST = 300
"""Characters of another library's words that are told."""

_PATH = re.compile(r"(?<![\w:/.])/(?:[^\s'\"`/]+/)+([^\s'\"`/]*)")
_DEVICE = ("out of memory", "can't allocate memory", "CUDA error")


@contextmanager
def refusing(
    say: Callable[[str], str], kind: Callable[[str], TransparentLlmError] = ModelRefusedError
) -> Iterator[None]:
    """Whatever another library raises within this block becomes one sentence: `say` makes it of what was raised.

    What is no fault of the model is not told as one: what a device says, memory that is gone among it, stays what it
    is, and a package that is missing is an InvalidRequestError.
    """
    try:
        yield
    except TransparentLlmError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _DEVICE):
            raise
        kind = InvalidRequestError if isinstance(error, ImportError) else kind
        raise kind(say(told(error))) from error


def refused(name: str, why: str, file: str | None = None) -> ModelRefusedError:
    """The error for a model that is not served as its files are; `file` is the one to blame, where it is one alone."""
    if file is None:
        return ModelRefusedError(f"{name!r} is not served: {why}")
    return ModelRefusedError(f"{name!r} is not served: its {printable(file)} {why}", metadata={"file": printable(file)})


def told(error: Exception) -> str:
    """What an error says, in one line, of paths no more than the last part; with its class where that says more. Of one
    that says nothing, where it was raised."""
    words = printable(_PATH.sub(r"\1", " ".join(str(error).split())))
    if not words:
        return f"{type(error).__name__}{_raised_in(error)}"
    says_enough = isinstance(error, (OSError, ValueError, ImportError))
    return (words if says_enough else f"{type(error).__name__}: {words}")[:_LONGEST]


def _raised_in(error: Exception) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return ""
    return f" without a word, in {frame.tb_frame.f_globals.get('__name__', '?')}.{frame.tb_frame.f_code.co_name}"


def listed(names: Collection[str]) -> str:
    """The first few of these names, and how many there are."""
    first = ", ".join(printable(name) for name in sorted(names, key=_natural)[:_NAMED])
    return first if len(names) <= _NAMED else f"{first}, ... ({len(names)} in all)"


def printable(text: str) -> str:
    """Without what would move the cursor, or worse, of the terminal that shows it."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def display_name(model_name: str) -> str:
    """A folder's or file's own name, or the hub name as it is: of where things lie on this machine, no more is told."""
    place, colon, file = model_name.rpartition(":")
    if colon and file.endswith(".gguf") and not os.path.exists(model_name):
        return f"{display_name(place)}:{file}"
    if os.path.isdir(model_name):
        return Path(model_name).resolve().name
    is_path = model_name.startswith(("/", ".", "~")) or os.path.exists(model_name)
    return Path(model_name).name if is_path else model_name


def _natural(name: str) -> list[tuple[int, str]]:
    """Layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]
