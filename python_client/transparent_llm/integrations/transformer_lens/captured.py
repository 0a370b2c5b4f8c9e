"""What a cache holds, with words for what it does not."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from transparent_llm.integrations.transformer_lens.refusal import not_served


class Captured(dict[str, torch.Tensor]):
    """The values of hooks by name.

    Args:
        values: That were read.
        hooks: Names of all hooks that can be read.
        served: Those of them that the message names.
    """

    def __init__(self, values: Mapping[str, torch.Tensor], hooks: Collection[str], served: frozenset[str]) -> None:
        super().__init__(values)
        self._hooks, self._served = hooks, served

    def __missing__(self, name: str) -> torch.Tensor:
        if name in self._hooks:
            silent = " and set_use_attn_result(True) is needed" if name.endswith("hook_result") else ""
            raise KeyError(f"{name} was not read: names_filter must let it through{silent}")
        raise not_served([name], self._served)
