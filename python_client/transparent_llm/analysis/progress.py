"""How far a long analysis is: a bar, or the caller's own function."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from transparent_llm.runtime.bars import tqdm
from transparent_llm.runtime.watching import someone_watches

Report = Callable[[int, "int | None"], None]
"""Called with how many are done, and how many there are; None where that is not known."""

_SHOWN_AFTER_S = 0.5
"""Where nobody asked for a bar, as for a transfer."""


class Bar:
    """Of things that are done one after another, as a `with` block.

    Args:
        name: Of the work.
        unit: Of what is counted.
        total: How many there are. None: it is not known.
        wanted: Who is told: the caller's function; or a bar (True), nobody (False), a bar if someone watches (None).
    """

    def __init__(self, name: str, unit: str, total: int | None, wanted: bool | Report | None) -> None:
        self._report = wanted if callable(wanted) else None
        is_drawn = self._report is None and (someone_watches() if wanted is None else bool(wanted))
        self._total, self._done = total, 0
        delay = _SHOWN_AFTER_S if wanted is None else 0
        self._bar = tqdm(desc=name, unit=f" {unit}", total=total, leave=False, disable=not is_drawn, delay=delay)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def add(self, n: int) -> None:
        """So many more are done."""
        self._done += n
        self._bar.update(n)
        if self._report is not None:
            self._report(self._done, self._total)
