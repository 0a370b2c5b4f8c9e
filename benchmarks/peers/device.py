"""Where the models of a benchmark compute: `--device`. What clients compute stays on the CPU.

A GPU works on after a call has returned: `finish` waits for it, so that a time is that of the work.
"""

from __future__ import annotations

import torch

from transparent_llm_server.models.placement.device import resolve_device

_chosen = torch.device("cpu")


def choose(name: str) -> torch.device:
    """For all models from here on: cpu, cuda, cuda:INDEX, gpu or auto.

    Raises:
        InvalidRequestError: not such a name, or a GPU that this machine does not have.
    """
    global _chosen
    _chosen = resolve_device(name)
    return _chosen


def chosen() -> torch.device:
    """The CPU, unless another one was chosen."""
    return _chosen


def is_gpu() -> bool:
    """Whether the models are on one."""
    return _chosen.type == "cuda"


def finish() -> None:
    """Wait until the device has nothing left to do."""
    if is_gpu():
        torch.cuda.synchronize(_chosen)


def described() -> str:
    """As a figure should name it."""
    return torch.cuda.get_device_name(_chosen) if is_gpu() else "cpu"
