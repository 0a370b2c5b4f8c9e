"""What `edits` blocks add to runs: each within the thread, or the task, that opened it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions.intervention import Intervention
from transparent_llm.quoting import kind_of
from transparent_llm.runtime.current import caller

_Self = TypeVar("_Self", bound="Editable")


class OwnEdits:
    """Of one object."""

    def __init__(self) -> None:
        self._open: WeakKeyDictionary[object, tuple[Intervention, ...]] = WeakKeyDictionary()

    def get(self) -> tuple[Intervention, ...]:
        """Of the blocks that the caller is in, the outermost first."""
        return self._open.get(caller(), ())

    def before(self, edits: object) -> tuple[Intervention, ...]:
        """Those, and then what `run` is given.

        Raises:
            InvalidRequestError: it is given something else than edits.
        """
        return (*self.get(), *checked_edits(edits))

    @contextmanager
    def within(self, edits: tuple[Intervention, ...]) -> Iterator[None]:
        """Open a block for the caller."""
        by = caller()
        before = self.get()
        self._open[by] = self.before(edits)
        try:
            yield
        finally:
            self._open[by] = before


class Editable:
    """An object whose runs can be edited."""

    _own_edits: OwnEdits

    @contextmanager
    def edits(self: _Self, *edits: Intervention) -> Iterator[_Self]:
        """Within a `with` block, every run that the thread makes has these edits, before those that it is given."""
        with self._own_edits.within(edits):
            yield self


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
