"""What the errors of a device mean: it has no memory left for one call, or it is lost for this process."""

from __future__ import annotations

import torch

from transparent_llm.errors import CapacityError, UnavailableError

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_ACCELERATOR_ERROR: type[RuntimeError] = getattr(torch, "AcceleratorError", RuntimeError)  # since torch 2.8


def is_out_of_memory(error: BaseException) -> bool:
    """Torch has a class for it on devices; on the CPU and in libraries only the words tell."""
    if isinstance(error, CapacityError):  # told already
        return False
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def device_is_lost(error: BaseException) -> bool:
    """Whether every later call would fail too. A device that has no memory left, or still answers, is not lost."""
    if not _is_of_device(error):
        return False
    return not _device_answers() if torch.cuda.is_initialized() else True  # type: ignore[no-untyped-call]


def _is_of_device(error: BaseException) -> bool:
    if is_out_of_memory(error):
        return False
    has_class = _ACCELERATOR_ERROR is not RuntimeError and isinstance(error, _ACCELERATOR_ERROR)
    return has_class or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


def _device_answers() -> bool:
    """Some errors of CUDA are about one call only; those that break the context break the next one as well."""
    try:
        torch.cuda.synchronize()
        return torch.ones(1, device="cuda").item() == 1.0
    except RuntimeError:
        return False


def lost() -> UnavailableError:
    """What callers of a lost device are told."""
    return UnavailableError(
        "the server can no longer compute and is shutting down; retry once it has restarted", reason="DRAINING"
    )


def out_of_memory(error: BaseException, retry_after_s: float) -> CapacityError:
    """What the caller is told for whom there was no memory, in seconds after which there may be."""
    return CapacityError(
        "the device has no memory left for this call; run fewer or shorter sentences, or release runs",
        metadata={"device_message": str(error)[:200]},
        retry_after_s=retry_after_s,
    )
