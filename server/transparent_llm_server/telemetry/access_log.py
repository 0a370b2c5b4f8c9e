"""One line for every call: what, how it ended, how long it took, whose. Never what was asked or answered."""

from __future__ import annotations

import logging
import queue
import threading
import time

from transparent_llm_server.events import Call

log = logging.getLogger(__name__)
_TOGETHER_S = 0.02
"""Lines of so long are made together: to wake a thread for each costs a small call a tenth of its time."""

_MOST_WAITING = 10_000
"""Calls whose line is not made; beyond it each makes its own."""


class AccessLog:
    """Logs calls at level INFO: as text, and in the record's `fields` by name, for logs of JSON lines.

    From `start` to `stop` a thread of its own makes the lines, so that no call waits for its own.
    """

    def __init__(self) -> None:
        self._over: queue.SimpleQueue[tuple[Call, float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, name="access-log", daemon=True)

    def start(self) -> None:
        """Begin to make lines."""
        self._thread.start()

    def stop(self) -> None:
        """Make those that are left."""
        if self._thread.is_alive():
            self._over.put(None)
            self._thread.join()

    def began(self, call: Call) -> None:
        """A call has one line, which is made when it is over."""

    def ended(self, call: Call) -> None:
        """Have the line of a call made that is over now."""
        if not log.isEnabledFor(logging.INFO):
            return
        if self._thread.is_alive() and self._over.qsize() < _MOST_WAITING:
            self._over.put((call, time.time()))
        else:
            _tell(call, time.time())

    def _live(self) -> None:
        while (over := self._over.get()) is not None:
            _tell(*over)
            if self._over.empty():
                time.sleep(_TOGETHER_S)


def _tell(call: Call, ended_at: float) -> None:
    of_owner = f" of {call.owner}" if call.owner else ""
    milliseconds = call.seconds * 1000
    fields = {
        "method": call.method,
        "code": call.code,
        "milliseconds": round(milliseconds, 3),
        "sent_bytes": call.sent_bytes,
        "positions": call.positions or "",
        "value_bytes": call.value_bytes or "",
        "peer": call.peer,
        "reason": call.reason,
        "owner": call.owner,
        "trace_id": call.trace_id,
    }
    known = {name: value for name, value in fields.items() if value != ""}
    said = (call.method, call.code, milliseconds, of_owner)
    record = log.makeRecord(log.name, logging.INFO, __file__, 0, "%s %s %.1f ms%s", said, None, extra={"fields": known})
    record.created, record.msecs = ended_at, float(int(ended_at % 1 * 1000))
    log.handle(record)
