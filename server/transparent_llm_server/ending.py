"""Ends that are not waited for longer than there is time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def until(moment: float) -> float:
    """Seconds from now to a moment of the monotonic clock; 0 once it is past."""
    return max(0.0, moment - time.monotonic())


def ends(end: Callable[[], object], within_s: float) -> bool:
    """Do what may wait for others for ever; whether it came to its end in time, or in a tenth of a second."""
    thread = threading.Thread(target=end, name="end", daemon=True)
    thread.start()
    thread.join(max(0.1, within_s))
    return not thread.is_alive()
