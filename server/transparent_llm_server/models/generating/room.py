"""Keys and values that grow in place. transformers' own cache copies all that it has at every step."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


class LayerWithRoom(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """Of one layer that looks at all tokens: memory for as many as there can be, of which those read so far are used.

    What it gives to attention are the values of a `DynamicLayer`, as a view.
    """

    def __init__(self, most: int) -> None:
        """`most`: tokens that a row can have."""
        super().__init__()
        self._most = most
        self._room: tuple[torch.Tensor, ...] = ()

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *args: Any,  # noqa: ARG002 - what other kinds of layers need
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [batch head pos d_head] of all tokens, these new ones behind those of before."""
        given = key_states, value_states
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room = tuple(x.new_empty((*x.shape[:-2], self._most, x.shape[-1])) for x in given)
        read = self.get_seq_length()
        n = read + key_states.shape[-2]
        for room, new in zip(self._room, given, strict=True):
            room[..., read:n, :] = new
        self.keys, self.values = (room[..., :n, :] for room in self._room)
        return self.keys, self.values


def cache_with_room(config: PretrainedConfig, most: int) -> DynamicCache:
    """The cache that a model of this configuration has, with room for a row of so many tokens. Layers of other kinds
    stay transformers' own: those that look at a window, and those that attend to nothing."""
    cache = DynamicCache(config=config)
    cache.layers = [LayerWithRoom(most) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
