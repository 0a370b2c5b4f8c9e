"""Where a client's results land, as users write it."""

from __future__ import annotations

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import kind_of


def device_of(device: str | torch.device) -> torch.device:
    """The device of that name, which is here.

    Raises:
        InvalidRequestError: torch knows no such name, or this machine has no such device.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise InvalidRequestError(
            f"device is no name of one, got {kind_of(device)}: write cpu, cuda or cuda:INDEX"
        ) from None
    if found.type == "cuda":  # counted, not tried: a process that has used a GPU cannot be forked
        count, is_whole = torch.cuda.device_count(), not isinstance(device, str) or device in (str(found), "cuda:0")
        is_here, has = is_whole and (found.index or 0) < count, f"{count} CUDA devices"  # torch wraps a large index
    else:
        is_here, has = _is_here(found), f"no {found.type}"
    if not is_here:
        raise InvalidRequestError(f"device {str(device)!r} is not available: this machine has {has}; use cpu")
    return found


def _is_here(device: torch.device) -> bool:
    """Whether a tensor can be made there."""
    try:
        return torch.zeros(1, device=device).numel() == 1
    except (RuntimeError, NotImplementedError, AssertionError, ImportError):
        return False
