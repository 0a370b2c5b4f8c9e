"""What `edits` blocks add to runs: each within the thread, or the task, that opened it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions.intervention import Intervention
from transparent_llm.quoting import kind_of
from transparent_llm.runtime.current import caller


class OwnEdits:
    """Of one object."""

    def __init__(self) -> None:
        self._open: WeakKeyDictionary[object, tuple[Intervention, ...]] = WeakKeyDictionary()

    def get(self) -> tuple[Intervention, ...]:
        """Of the blocks that the caller is in, the outermost first."""
        return self._open.get(caller(), ())

    @contextmanager
    def within(self, edits: tuple[Intervention, ...]) -> Iterator[None]:
        """Open a block for the caller."""
        by = caller()
        before = self._open.get(by, ())
        self._open[by] = (*before, *checked_edits(edits))
        try:
            yield
        finally:
            self._open[by] = before


def checked_edits(edits: object) -> tuple[Intervention, ...]:
    """What `run` is given as edits.

    Raises:
        InvalidRequestError: something else.
    """
    if isinstance(edits, Intervention):
        raise InvalidRequestError("edits is a list: write [edit]")
    found = tuple(edits) if isinstance(edits, list | tuple) else None
    wrong = found is None or next((each for each in found if not isinstance(each, Intervention)), None)
    if found is None or wrong is not None:
        raise InvalidRequestError(
            f"edits is a list of edits such as zero(head(5, 1)), got {kind_of(edits if found is None else wrong)}"
        )
    return found
