"""Processors of pictures and sound, which TransformerLens would fetch for models that take them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_processors() -> Iterator[None]:
    """Within this block TransformerLens looks for none. It would ask the hub for one by a name that is made up here,
    and run `pip install torchvision` if it could not be made; only text is served, which needs neither."""
    from transformer_lens.model_bridge.sources.transformers import helpers

    loaders = getattr(helpers, "_MODALITY_PROCESSOR_LOADERS", [])  # there is no setting for it
    held = loaders.copy()
    loaders.clear()
    try:
        yield
    finally:
        loaders[:] = held or loaders
