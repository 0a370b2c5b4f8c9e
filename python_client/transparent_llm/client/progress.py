"""How far a call is: a bar, or a line on what it waits for, where it takes long enough to wonder; or the caller's own
function.

Nothing is made for a call that ends within half a second: what is slower than that is drawn by one thread for all.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from transparent_llm.runtime.bars import tqdm
from transparent_llm.runtime.forking import in_child
from transparent_llm.runtime.watching import someone_watches
from transparent_llm.wire.methods import QUEUE_POSITION_HEADER

log = logging.getLogger("transparent_llm")

SHOWN_AFTER_S = 0.5
_REDRAWN_EVERY_S = 0.1
_IDLE_TURNS = 20
"""After which the thread that draws ends; the next call starts another."""

_LOGGED_AFTER_S = 0.3
"""A wait that is told in the log, where nothing is drawn: what gRPC's own tries take, about twice that, is one."""

_PLACE = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)
"""What a server may say of a place in its queue: how many runs are before."""

_OF_BYTES = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
_OF_WAITING = {"bar_format": "{desc} [{elapsed}]"}

Report = Callable[[str, int, int], None]
"""Called with the RPC's name, the bytes that have come, and all of them, after each message of a transfer. What is read
ahead is reported too, from the thread that reads it."""


class _Followed(Protocol):
    def initial_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


class Meter:
    """How far one call is.

    Args:
        name: Of the RPC.
        wanted: Who is told: the caller's function; or a bar (True), nobody (False), a bar if someone watches (None).
    """

    def __init__(self, name: str, wanted: bool | Report | None) -> None:
        self._name = name
        self._report = wanted if callable(wanted) else None
        self.is_drawn = self._report is None and (someone_watches() if wanted is None else bool(wanted))
        """Whether somebody will see a bar or a line, if it takes long enough."""

        self._began = self._heard = time.monotonic()
        self._received = self._total = 0
        self._waits_for = self._place = ""
        self._followed: _Followed | None = None
        self._bar: tqdm | None = None  # type: ignore[type-arg]
        self._shows_bytes = False
        if self.is_drawn:
            _drawing.begin(self)

    def show(self, received: int, total: int) -> None:
        """So much has come."""
        if self._report is not None:
            self._report(self._name, received, total)
        self._received, self._total, self._waits_for, self._heard = received, total, "", time.monotonic()

    def waits(self, reason: str) -> None:
        """The call must wait, for this reason: a sentence. Where nothing is drawn the log is told, once in a wait."""
        if not self.is_drawn:
            if self._waits_for or time.monotonic() - self._heard < _LOGGED_AFTER_S:
                return
            log.warning("%s: %s", self._name, reason)
        self._waits_for = reason

    def follow(self, call: _Followed) -> None:
        """A call that may be told its place in a queue, before its answer comes."""
        self._followed, self._place = call, ""

    def _ask(self) -> None:
        """Wait for what a call is told first, on a thread of its own: it comes with the answer at the latest."""
        call, self._followed = self._followed, None
        if call is not None:
            threading.Thread(target=self._learn, args=(call,), name="place", daemon=True).start()

    def _learn(self, call: _Followed) -> None:
        told = dict(call.initial_metadata() or ()).get(QUEUE_POSITION_HEADER, "")
        if isinstance(told, str) and _PLACE.fullmatch(told):
            self._place = f"waiting: {told} run{'s' if told != '1' else ''} before this one"

    def close(self) -> None:
        """Leave no bar behind."""
        if self.is_drawn:
            _drawing.end(self)

    def draw(self, now: float) -> None:
        """As it is now, if it began long enough ago: the thread's part."""
        if now - self._began < SHOWN_AFTER_S:
            return
        self._ask()
        shows_bytes = bool(self._total) and not self._waits_for
        text = (
            self._name if shows_bytes else f"{self._name}: {self._waits_for or self._place or 'waiting for the answer'}"
        )
        if self._bar is None or shows_bytes != self._shows_bytes:
            self.erase()
            self._shows_bytes = shows_bytes
            self._bar = _bar(text, self._total if shows_bytes else None)
        self._bar.set_description_str(text, refresh=False)
        if shows_bytes:
            self._bar.total, self._bar.n = self._total, self._received
        self._bar.refresh()

    def erase(self) -> None:
        """Take away what is drawn."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.total = None  # a notebook leaves a red bar of a transfer that ended early
            bar.close()


class _Drawing:
    """Of the calls that are under way, by one thread, which is there while calls are made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._meters: dict[Meter, None] = {}
        self._is_there = False

    def begin(self, meter: Meter) -> None:
        with self._lock:
            self._meters[meter] = None
            if not self._is_there:
                self._is_there = True
                threading.Thread(target=self._draw, name="progress", daemon=True).start()

    def end(self, meter: Meter) -> None:
        with self._lock:
            self._meters.pop(meter, None)
            meter.erase()

    def _draw(self) -> None:
        idle = 0
        while idle < _IDLE_TURNS or not self._is_over():
            time.sleep(_REDRAWN_EVERY_S)
            with self._lock:
                now = time.monotonic()
                idle = 0 if self._meters else idle + 1
                with contextlib.suppress(OSError, ValueError):  # nobody is there any more to see it
                    for meter in self._meters:
                        meter.draw(now)

    def _is_over(self) -> bool:
        with self._lock:
            self._is_there = bool(self._meters)
            return not self._is_there


_drawing = _Drawing()


def _leave_parent() -> None:
    """In a forked child no thread draws, and the lock may be held for ever."""
    global _drawing
    _drawing = _Drawing()


in_child(_leave_parent)


def _bar(text: str, total_bytes: int | None) -> tqdm:  # type: ignore[type-arg]
    """Of bytes, or a line with the time that was waited."""
    kind = _OF_WAITING if total_bytes is None else _OF_BYTES
    return tqdm(desc=text, total=total_bytes, leave=False, mininterval=0, **kind)
