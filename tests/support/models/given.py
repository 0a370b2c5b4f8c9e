"""Implementations of the contract with nothing beyond it: no factors, no padding that is known, no run by token ids."""

from __future__ import annotations

from typing import Any

import torch

from transparent_llm.contract import ModelInfo, TransparentLlm


class ContractOnly(TransparentLlm):
    """Another implementation's abstract methods, and none of its others."""

    def __init__(self, llm: TransparentLlm) -> None:
        self._llm = llm


def _handed_on(name: str) -> Any:
    def method(self: ContractOnly, *arguments: Any) -> Any:
        return getattr(self._llm, name)(*arguments)

    return method


for _name in TransparentLlm.__abstractmethods__:
    setattr(ContractOnly, _name, _handed_on(_name))
ContractOnly.__abstractmethods__ = frozenset()


class Given(ContractOnly):
    """One layer whose values are given: tensors by the name of the method, whatever is asked of it."""

    def __init__(self, **values: torch.Tensor) -> None:
        super().__init__(self)
        self._values = values

    def model_info(self) -> ModelInfo:
        return ModelInfo("given", 0, 1, 1, 2, 1)

    def batch_size(self) -> int:
        return 1

    def __getattribute__(self, name: str) -> Any:
        values = object.__getattribute__(self, "__dict__").get("_values", {})
        return (lambda *_: values[name]) if name in values else object.__getattribute__(self, name)
