"""What the system lets this process have: open files and threads, raised as far as can be. What lacks is said."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from pathlib import Path

import torch

from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.http.endpoint import MOST_CONNECTIONS, TOLD_SO

log = logging.getLogger(__name__)

_FILES_OF_A_CALL = 2
"""Its connection, and the shared memory of its client."""

_OTHER_FILES = 128
"""Models, listeners, logs, what libraries keep open, and connections without calls."""

_OTHER_THREADS = 96
"""Health, probes, metrics, the model's, gRPC's own."""

_MOST_FILES = 65_536
"""No more is asked for: some libraries walk through all that could be open."""


def raise_limits(config: ServerConfig) -> None:
    """Have room for all calls that may be under way; warn where that cannot be had."""
    calls = config.max_streams + config.spare_threads
    pages = MOST_CONNECTIONS + TOLD_SO if config.page is not None else 0
    files, threads = calls * _FILES_OF_A_CALL + pages + _OTHER_FILES, calls + torch.get_num_threads() + _OTHER_THREADS
    allowed = _raised(resource.RLIMIT_NOFILE, _MOST_FILES)
    if allowed < files:
        _warn("open files", allowed, files, calls, "LimitNOFILE, ulimit -n")
    allowed = min(_raised(resource.RLIMIT_NPROC, threads), *_cgroup_limits())
    if allowed < threads:
        _warn("threads", allowed, threads, calls, "TasksMax, ulimit -u, pids.max")


def _warn(what: str, allowed: float, wanted: int, calls: int, where: str) -> None:
    log.warning(
        "this process may have %d %s, and could need %d for %d calls: raise the limit (%s), or lower --max-streams",
        allowed,
        what,
        wanted,
        calls,
        where,
    )


def _raised(kind: int, wanted: int) -> float:
    """Raise the soft limit to so much, as far as the hard one allows it; what it is then."""
    soft, hard = (float("inf") if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(kind))
    goal = min(hard, wanted)
    if soft >= goal:
        return soft
    try:
        resource.setrlimit(kind, (int(goal), resource.getrlimit(kind)[1]))
    except (OSError, ValueError):  # a container that forbids it
        return soft
    return goal


def _cgroup_limits() -> Iterator[float]:
    """Of processes and threads together, in the groups that this process is in."""
    yield float("inf")
    for folder in _cgroup_folders():
        try:
            yield int((folder / "pids.max").read_text(encoding="ascii"))
        except (OSError, ValueError):  # "max", or none is set there
            continue


def _cgroup_folders() -> Iterator[Path]:
    """Of version 2, and of version 1's controller, as containers see them too."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "pids"):
            root = Path("/sys/fs/cgroup") / controllers
            yield from (root, root / path.lstrip("/"))
