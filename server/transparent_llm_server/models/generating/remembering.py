"""Passes of the plain model that compute only what is new of a row, and remember keys and values of what was before.

Whether a model gives the same so as in a whole pass is not assumed of its family but found out of it, once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch

from transparent_llm.errors import TransparentLlmError
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.passes import few_logits
from transparent_llm_server.models.forward.tolerance import allowed_error, largest_error

log = logging.getLogger(__name__)

_known: WeakKeyDictionary[BridgedModel, bool] = WeakKeyDictionary()

_WHAT_MODELS_RAISE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_PROBE = 16
"""Tokens with which a model is tried, at the most."""


class RememberedRow:
    """One row that grows, with the keys and values of the tokens that the model has read of it."""

    def __init__(self, model: BridgedModel, generation: int, most: int) -> None:
        """`generation`: of the weights, which all passes must have. `most`: tokens that the model will read of it."""
        self._model, self._generation, self._most = model, generation, most
        self._cache: object | None = None
        self._n_read = 0
        self._few_logits: dict[str, int] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is remembered."""
        return self._cache is None

    def n_new(self, n_tokens: int) -> int:
        """How many tokens the next pass reads, of a row that has so many by then."""
        return n_tokens - (self._n_read if self._goes_on(n_tokens) else 0)

    def logits(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Of the token after these [d_vocab], float32 on the CPU. They are those of before, and some new ones.

        Raises:
            NotFoundError: MODEL_CHANGED.
            AbandonedError: nobody waits for them any more.
        """
        from transparent_llm_server.models.generating.room import cache_with_room

        model = self._model
        if not self._goes_on(len(token_ids)):
            self._cache, self._n_read = cache_with_room(model.text_config, self._most), 0
        new = torch.tensor([token_ids[self._n_read :]], device=model.device)
        mask = torch.ones((1, len(token_ids)), dtype=torch.int64, device=model.device)
        cache, self._cache = self._cache, None  # a pass that does not end leaves it half grown
        with model.plain(self._generation) as plain:
            if self._few_logits is None:  # once, as a signature takes long to look at
                self._few_logits = few_logits(plain)
            found = plain(new, attention_mask=mask, past_key_values=cache, use_cache=True, **self._few_logits)
        self._cache, self._n_read = cache, len(token_ids)
        logits: torch.Tensor = found.logits[0, -1].float().cpu()
        return logits

    def forget(self) -> None:
        """Free what is remembered."""
        self._cache = None

    def _goes_on(self, n_tokens: int) -> bool:
        """Whether a row of so many tokens is computed as the remembered part of it was."""
        return self._cache is not None and self._model.regimes.may_share([self._n_read, n_tokens])


def bytes_per_token(model: BridgedModel) -> int:
    """What is remembered of one token: keys and values of all layers."""
    widths = (layer.n_kv_heads * layer.heads.d_head for layer in model.layers if layer.has_heads)
    return 2 * sum(widths) * model.dtype.itemsize


def remembers(model: BridgedModel) -> bool:
    """Whether the model gives in steps what it gives in one pass. Tried once. Model thread."""
    if model not in _known:
        _known[model] = model.engine == "taps" and not model.regimes.alone and _is_same(model)
    return _known[model]


def _is_same(model: BridgedModel) -> bool:
    n_tokens = min(_PROBE, *model.regimes.borders, model.d_vocab)
    ids, generation = list(range(n_tokens)), model.edits.check()
    row = RememberedRow(model, generation, n_tokens)
    try:
        steps = [row.logits(ids[:n]) for n in range(max(1, n_tokens - 3), n_tokens + 1)]
        with model.plain(generation) as plain:
            whole = plain(torch.tensor([ids], device=model.device), use_cache=False).logits[0]
    except (TransparentLlmError, torch.OutOfMemoryError):
        raise
    except _WHAT_MODELS_RAISE as error:
        log.info("%s computes whole rows in each step of a generation: %r", model.architecture, error)
        return False
    got, wanted = torch.stack(steps), whole[-len(steps) :].float().cpu()
    return largest_error(got, wanted) <= allowed_error(wanted, model.dtype)
