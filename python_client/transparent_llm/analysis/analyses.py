"""The table of analyses: what each name is computed by. Servers compute the same functions, next to the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transparent_llm.analysis.layer_lens import layer_lens
from transparent_llm.analysis.token_logprobs import token_logprobs

ANALYSES: dict[str, Callable[..., Any]] = {function.__name__: function for function in (layer_lens, token_logprobs)}
"""Each takes an object that has a run, indices and parameters, and gives a tensor or a named tuple of several."""
