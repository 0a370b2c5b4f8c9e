"""A log of JSON lines: one object for each record, so that a collector needs no second format for some of them."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone


class JsonLines(logging.Formatter):
    """`time` (UTC), `level`, `logger`, `message`, the record's own `fields`, and `traceback` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; what was several lines of text is one string in it."""
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
