"""Reading a run, or a model without any, by the names of the contract."""

from __future__ import annotations

from typing import Protocol

import torch

from transparent_llm.analysis.circuits import CIRCUITS
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InternalError, NotSupportedError
from transparent_llm_server.models.values.value import Found, Stored


class Reader(Protocol):
    """Gives the values of a run, or of a model without any run."""

    reads_are_quick: bool
    """Whether a call is little work, whatever the work of taking the value is."""

    def __call__(self, name: str, *arguments: object) -> Found:
        """What the method of that name returns for these arguments."""


class ValuesReader:
    """Reads what has methods that return values: nothing is computed before it is cut."""

    def __init__(self, values: object, *, reads_are_quick: bool) -> None:
        self._values = values
        self.reads_are_quick = reads_are_quick

    def __call__(self, name: str, *arguments: object) -> Found:
        """Call it: it says what is wrong with the arguments, and computes little."""
        found: Found = getattr(self._values, name)(*arguments)
        return found


class ContractReader:
    """Reads any implementation of the contract, whose methods compute what they return."""

    reads_are_quick = False

    def __init__(self, llm: TransparentLlm, run: torch.Tensor | None = None) -> None:
        self._llm, self._run = llm, run

    def __call__(self, name: str, *arguments: object) -> Found:
        """Call it. `run` are the tokens of the run that is meant, if one is.

        Raises:
            InternalError: the implementation's current run is another one.
        """
        if self._run is not None and not torch.equal(self._llm.tokens(), self._run):
            raise InternalError(
                f"{type(self._llm).__name__}.copy() gives objects that share their current run, so that one run reads "
                "another's values; give each copy its own"
            )
        if name in CIRCUITS:
            raise NotSupportedError(f"{type(self._llm).__name__} has no weights of heads that can be read")
        if not hasattr(self._llm, name):
            raise NotSupportedError(
                f"{type(self._llm).__name__} has no {name}; read neuron_output one by one", metadata={"method": name}
            )
        result = getattr(self._llm, name)(*arguments)
        if isinstance(result, tuple):
            return tuple(None if tensor is None else Stored(tensor) for tensor in result)
        return Stored(result)
