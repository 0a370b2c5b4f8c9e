"""`transparent-llm serve`, which gives up its right to start threads when it gets SIGUSR1."""

from __future__ import annotations

import resource
import signal
import sys

from transparent_llm.cli import main

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_NPROC, (1, 1)))
    sys.exit(main())
