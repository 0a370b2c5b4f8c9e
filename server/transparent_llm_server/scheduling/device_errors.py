"""A device that is lost for this process: after such an error every later call would fail too."""

from __future__ import annotations

import torch

_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_ACCELERATOR_ERROR: type[RuntimeError] = getattr(torch, "AcceleratorError", RuntimeError)  # since torch 2.8


def device_is_lost(error: BaseException) -> bool:
    """Whether this error says so. A device that has no memory left, or still answers, is not lost."""
    if not _is_of_device(error):
        return False
    return not _device_answers() if torch.cuda.is_initialized() else True  # type: ignore[no-untyped-call]


def _is_of_device(error: BaseException) -> bool:
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _MEMORY):
        return False
    has_class = _ACCELERATOR_ERROR is not RuntimeError and isinstance(error, _ACCELERATOR_ERROR)
    return has_class or (isinstance(error, RuntimeError) and "CUDA error" in text)


def _device_answers() -> bool:
    """Some errors of CUDA are about one call only; those that break the context break the next one as well."""
    try:
        torch.cuda.synchronize()
        return torch.ones(1, device="cuda").item() == 1.0
    except RuntimeError:
        return False
