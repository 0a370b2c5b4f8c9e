"""Which blocks of a model can be left out of a pass, as their stream is known.

Some models give blocks something of lower ones besides the stream. So this is not assumed of a family but found out of
each model, once for each layer: rows of a run, entered there with its stream, must come out as they did.
"""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

import torch

from transparent_llm.errors import TransparentLlmError
from transparent_llm_server.models.forward.batch import Batch
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.capture import Capture
from transparent_llm_server.models.forward.passes import Section
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.forward.tolerance import allowed_error, largest_error

log = logging.getLogger(__name__)

_known: WeakKeyDictionary[BridgedModel, dict[int, bool]] = WeakKeyDictionary()

_WHAT_BLOCKS_RAISE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def start_of(model: BridgedModel, layer: int, capture: Capture, batch: Batch) -> int:
    """The first block that a pass must compute in which nothing below a layer changes: that layer, or 0.

    Args:
        model: That runs.
        layer: The first in which anything changes.
        capture: Of a run of this model.
        batch: Its first row, without padding.
    """
    known = _known.setdefault(model, {})
    if layer not in known:
        known[layer] = layer > 0 and _is_same(model, layer, capture, batch)
    return layer if known[layer] else 0


def _is_same(model: BridgedModel, layer: int, capture: Capture, batch: Batch) -> bool:
    blocks, last = model.blocks, Passing(len(model.layers) - 1, "residual_out")
    if blocks is None:
        return False
    n_pos = batch.tokens.shape[1]
    wanted = capture.residual_out[:1, :n_pos]
    section = Section(frozenset({last}), layer, capture.layers[layer].residual_in[:1, :n_pos])
    try:
        if not blocks.are_known:
            with blocks.looked_at():
                model.section(batch.tokens, batch.mask, {}, Section(frozenset({last})), capture.generation)
        got = model.section(batch.tokens, batch.mask, {}, section, capture.generation)[last]
    except (TransparentLlmError, torch.OutOfMemoryError):
        raise
    except _WHAT_BLOCKS_RAISE as error:
        log.info("%s computes all blocks below layer %d in each pass: %r", model.architecture, layer, error)
        return False
    return largest_error(got.reshape(wanted.shape), wanted) <= allowed_error(wanted, model.dtype)
