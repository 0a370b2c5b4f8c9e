"""Torch as it is by itself, whatever the code around a call has set for its own thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_CPU = torch.device("cpu")


@contextmanager
def plain_torch() -> Iterator[None]:
    """Within this block: no autocast, no inference mode, and new tensors on the CPU where nothing else is said.

    So values have the same bits, and are tensors that can be written to and used with gradients. Modes are a
    thread's own. The default dtype is not, and is left alone: code here names the dtypes that it wants.
    """
    casting = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    if not casting and not torch.is_inference_mode_enabled() and torch.get_default_device() == _CPU:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.device(_CPU))
        for kind in casting:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield
