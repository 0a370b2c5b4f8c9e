"""Whether there is memory for a model, said before it is taken."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from transparent_llm.errors import TooLargeError
from transparent_llm_server.models.placement.device import resolve_device

log = logging.getLogger(__name__)
_CGROUP = Path("/sys/fs/cgroup")


def require_memory(weights: int, passing: int, device: str, name: str) -> None:
    """Say what a load takes, and refuse one that does not fit.

    Args:
        weights: Bytes of all weights as they will be.
        passing: Bytes that the load takes beside them for a moment.
        device: Where they will be; they are made in the memory of the host.
        name: Of the model.

    Raises:
        TooLargeError: with what it needs and what is free.
    """
    tell_memory(weights, name, passing)
    _require(weights + passing, _free_on_host(), "of the host", name)
    place = resolve_device(device)
    if place.type == "cuda":
        _require(weights, torch.cuda.mem_get_info(place)[0], f"of {place}", name)


def tell_memory(weights: int, name: str, passing: int = 0) -> None:
    """Say what a load takes, before it begins."""
    more = f", and {passing} more for a moment" if passing else ""
    log.info("%s: its weights take %d bytes%s", name, weights, more)


def _require(wanted: int, free: int | None, whose: str, name: str) -> None:
    if free is not None and wanted > free:
        raise TooLargeError(
            f"{name!r} needs {wanted} bytes of memory {whose} to be loaded, {free} are free: take a narrower dtype, a "
            "smaller model or a larger machine",
            metadata={"size": str(wanted), "limit": str(free)},
        )


def _free_on_host() -> int | None:
    """What this process can have more; None where the system does not tell."""
    found = [bytes_ for bytes_ in (_free_of_machine(), _free_of_cgroup()) if bytes_ is not None]
    return min(found, default=None)


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        pages, size = "SC_AVPHYS_PAGES", "SC_PAGE_SIZE"
        return os.sysconf(pages) * os.sysconf(size) if pages in os.sysconf_names else None
    available = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if available is None else int(available) * 1024


def _free_of_cgroup() -> int | None:
    """Of a container; what its limit counts as used can mostly be given back, as far as it is a cache of files."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        kept = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        return None if limit == "max" else int(limit) - used + int(kept.get("file", 0))
    except (OSError, ValueError):
        return None
