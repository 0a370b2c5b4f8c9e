"""From the device to memory that can be sent.

On the CPU nothing is copied that lies in order already. From a GPU, elements come through pinned memory on a
stream of their own, so that a copy waits for no forward pass and the next piece is under way while one is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache

import torch

_AHEAD = 2
"""Pieces in flight from a GPU: one is sent while the other is copied."""


def on_host(parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Each part contiguous on the CPU, in order."""
    copies: deque[_DeviceCopy] = deque()
    for part in parts:
        if part.device.type != "cuda":
            yield part.contiguous().cpu()
            continue
        copies.append(_DeviceCopy(part))
        if len(copies) == _AHEAD:
            yield copies.popleft().finished()
    while copies:
        yield copies.popleft().finished()


class _DeviceCopy:
    """One copy that is under way. It keeps its source alive until it is finished."""

    def __init__(self, part: torch.Tensor) -> None:
        with torch.cuda.device(part.device):
            self._stream = _side_stream(part.device)
            self._stream.wait_event(torch.cuda.current_stream().record_event())  # what computes the part goes first
            with torch.cuda.stream(self._stream):
                self._source = part.contiguous()
                self._target = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
                self._target.copy_(self._source, non_blocking=True)
                self._done = self._stream.record_event()
            part.record_stream(self._stream)

    def finished(self) -> torch.Tensor:
        """The copy, on the CPU."""
        self._done.synchronize()
        return self._target


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
