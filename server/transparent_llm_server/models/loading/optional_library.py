"""What transformers imports at the first load if it happens to be installed, without what that says to developers."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_MODULES = ("torchao", "transformers.quantizers.quantizer_torchao")
_TALKATIVE = ("torchao", "torchao.kernel.intmm", "torch.utils._pytree")
"""Loggers that tell of parts that this machine has no use for, or of what torch will call deprecated one day."""

_once = threading.Lock()
_imported: list[str] = []


def import_quietly() -> None:
    """Import it now, once. What it says later, and whatever else is wrong with it, is told as ever."""
    with _once:
        if _imported:
            return
        _imported.extend(_MODULES)
        if importlib.util.find_spec(_MODULES[0]) is None:
            return
        with _errors_only(), suppress(Exception):  # transformers finds out by itself, and says so
            for module in _MODULES:
                importlib.import_module(module)


@contextmanager
def _errors_only() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
