"""What both sides of a comparison have alike, and what a figure is to be read with: machine, commit, load, threads."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from peers import device

_ROOT = Path(__file__).parents[2]
_WAITING = "OMP_WAIT_POLICY"
_THREADS = "OMP_NUM_THREADS"
_NOT_CODE = (":!docs", ":!*.md")
"""What a run itself writes, or what changes no figure."""

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_load_before = os.getloadavg()


def set_for_all(threads: int) -> None:
    """Threads of this process and of all that it starts, which do not spin while they wait.

    torch reads both once, when it is loaded; where it was not told, the process starts again. A waiting policy that is
    set already stays.
    """
    wanted = {_WAITING: os.environ.get(_WAITING, "passive"), _THREADS: str(threads)}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})


def here() -> dict[str, Any]:
    """Fields of a benchmark's line of JSON: what it ran on and beside what."""
    return {
        "machine": _machine(),
        "device": device.described(),
        "threads": int(os.environ.get(_THREADS, CORES)),
        "waiting": os.environ.get(_WAITING, "default"),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "load": [round(average[0], 1) for average in (_load_before, os.getloadavg())],
    }


def _machine() -> str:
    import grpc
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = (
        f"{_processor()}, {CORES} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}, torch {torch.__version__}, grpcio {grpc.__version__}",
    )
    return ", ".join(parts)


def _processor() -> str:
    """As the kernel names it (Linux)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def _commit() -> str:
    """The short name; with a + where files differ from it."""
    name = _git("rev-parse", "--short", "HEAD")
    return f"{name}+" if name and _git("status", "--porcelain", "--", ".", *_NOT_CODE) else name or "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
