"""`transparent-llm`, which on SIGUSR1 says what its garbage collector would go over."""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType

from transparent_llm.cli import main


def count(_number: int, _frame: FrameType | None) -> None:
    print(f"{gc.get_freeze_count()} objects are set aside, {len(gc.get_objects())} are not", file=sys.stderr)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, count)
    sys.exit(main())
