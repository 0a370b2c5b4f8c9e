"""How much memory a device has in use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import torch

_RESIDENT_PAGES = 1
"""Its place in /proc/self/statm."""


def device_memory(devices: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """Device, `used` or `total`, and bytes. Of the CPU only what this process uses is told, and only on Linux."""
    for device in sorted({"cpu", *devices}):
        if device.startswith("cuda"):
            yield from _of_gpu(device)
        elif device == "cpu":
            yield from _of_process()


def _of_gpu(device: str) -> Iterator[tuple[str, str, int]]:
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # it is lost; metrics must tell of the rest all the same
        return
    yield device, "used", total - free
    yield device, "total", total


def _of_process() -> Iterator[tuple[str, str, int]]:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[_RESIDENT_PAGES])
    except FileNotFoundError:
        return
    yield "cpu", "used", pages * os.sysconf("SC_PAGE_SIZE")
