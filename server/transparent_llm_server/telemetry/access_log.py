"""One line for every call: what, how it ended, how long it took, whose. Never what was asked or answered."""

from __future__ import annotations

import logging

from transparent_llm_server.events import Call

log = logging.getLogger(__name__)


class AccessLog:
    """Logs calls at level INFO: as text, and in the record's `fields` by name, for logs of JSON lines."""

    def began(self, call: Call) -> None:
        """A call has one line, which is written when it is over."""

    def ended(self, call: Call) -> None:
        """Write the line of a call that is over."""
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
        log.info("%s %s %.1f ms%s", call.method, call.code, milliseconds, of_owner, extra={"fields": known})
