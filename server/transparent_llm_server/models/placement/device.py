"""Device names as users write them."""

from __future__ import annotations

import re

import torch

from transparent_llm.errors import InvalidRequestError


def resolve_device(name: str) -> torch.device:
    """The torch device for "cpu", "cuda", "cuda:1", "gpu" (the same as "cuda") or "auto" (a GPU if there is one).

    Raises:
        InvalidRequestError: not such a name, or a GPU that this machine does not have.
    """
    torch_name = {"gpu": "cuda", "auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(name, name)
    match = re.fullmatch(r"cpu|cuda(?::([0-9]{1,3}))?", torch_name)
    if match is None:
        several = "; to spread a model over several devices, use device_map" if "," in name else ""
        raise InvalidRequestError(f"device {name!r} is unknown; use cpu, cuda, cuda:INDEX, gpu or auto{several}")
    if torch_name != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise InvalidRequestError(
            f"device {name!r} is not available: {torch.cuda.device_count()} CUDA devices are visible; use cpu or auto"
        )
    return torch.device(torch_name)
