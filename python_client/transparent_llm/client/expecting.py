"""What must come for a read, as far as it is known: from the run, the model, and what was asked for of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from transparent_llm.client.ask import Ask
from transparent_llm.client.models import UNKNOWN_MODEL
from transparent_llm.description import ModelDescription
from transparent_llm.selection import Selection
from transparent_llm.wire.expected import Expected
from transparent_llm.wire.methods import METHODS, ROWS


def of_run(ask: Ask, *, factored: bool = False) -> Expected:
    """What a read of a run brings: with `factored` perhaps only its factors.

    Those that weights belong to come whole and are cut here; all others come cut, and only values in another type.
    """
    method, model = METHODS[ask.name], ask.run.model
    is_whole = factored and method.weights is not None
    sizes = {**_sizes(ask.run.shape, model, ask.layer), **ask.lengths}
    sizes = _cut(sizes, {} if is_whole else ask.axes)
    dtype = _dtype(ask.name, model, None if factored else ask.dtype)
    return Expected(ask.name, method.dims or (), sizes, dtype, method.parts if factored or method.is_parts else ())


def of_model(name: str, model: ModelDescription, selection: Selection, n: int | None = None) -> Expected:
    """What a read of the model alone brings: asked of `n` vectors at once, so many rows."""
    method = METHODS[name]
    dims = method.dims_of(len(method.dims or ()) + (n is not None))
    sizes = _cut(_sizes(None, model, None), selection.of(dims))
    if n is not None:
        sizes[ROWS] = n
    return Expected(name, dims, sizes, _dtype(name, model, selection.dtype))


def of_circuits(name: str, model: ModelDescription, axes: Mapping[str, slice]) -> Expected:
    """What a read of the weights of heads brings."""
    method, info = METHODS[name], model.info
    sizes = {"d_model": info.d_model, **dict.fromkeys(("layer", "later_layer"), info.n_layers)}
    sizes |= dict.fromkeys(("head", "later_head"), info.n_heads)
    return Expected(name, method.dims or (), _cut(sizes, axes), _dtype(name, model, None), method.parts)


def _sizes(shape: tuple[int, int] | None, model: ModelDescription, layer: int | None) -> dict[str, int]:
    sizes = {"bound": 2}
    if shape is not None:
        sizes["batch"] = shape[0]
        sizes.update(dict.fromkeys(("pos", "query_pos", "key_pos", "target", "source"), shape[1]))
    if model is not UNKNOWN_MODEL:
        info = model.info
        sizes.update(d_model=info.d_model, d_vocab=info.d_vocab, vocab=info.d_vocab, head=info.n_heads)
    if layer is not None and 0 <= layer < len(model.d_ffn):
        sizes.update(dict.fromkeys(("d_ffn", "hidden", "span"), model.d_ffn[layer]))
    return sizes


def _cut(sizes: dict[str, int], axes: Mapping[str, slice]) -> dict[str, int]:
    return {axis: len(range(n)[axes[axis]]) if axis in axes else n for axis, n in sizes.items()}


def _dtype(name: str, model: ModelDescription, wanted: torch.dtype | None) -> torch.dtype | None:
    return METHODS[name].dtype or wanted or model.dtype
