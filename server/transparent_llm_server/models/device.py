"""Device names as users write them."""

from __future__ import annotations

import torch

from transparent_llm.errors import InvalidRequestError


def resolve_device(name: str) -> torch.device:
    """The torch device for "cpu", "cuda", "cuda:1", "gpu" (the same as "cuda") or "auto" (a GPU if there is one).

    Raises:
        InvalidRequestError: not such a name, or a GPU that this machine does not have.
    """
    wanted = {"gpu": "cuda", "auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(name, name)
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InvalidRequestError(f"device {name!r} is unknown; use cpu, cuda, cuda:INDEX, gpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidRequestError(
            f"device {name!r} is not here: {torch.cuda.device_count()} CUDA devices are visible; use cpu or auto"
        )
    return device
