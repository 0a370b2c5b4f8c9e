"""What a client knows of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from transparent_llm.client.models import Models
from transparent_llm.contract import TransparentLlm
from transparent_llm.description import ModelDescription
from transparent_llm.interventions import Intervention
from transparent_llm.padding import RunPadding
from transparent_llm.run_input import RunInput
from transparent_llm.wire.runs import RunResult


@dataclass(frozen=True, eq=False)
class CurrentRun:
    """A run as its server answered it; no two are equal, so that what is kept of one is never taken for another's."""

    run_input: RunInput
    """By which it can be made again."""

    key: str
    """Sent with the run and all its reads, which proxies then give to one server."""

    result: RunResult
    models: Models
    edits: tuple[Intervention, ...] = ()
    sources: Mapping[TransparentLlm, CurrentRun] = field(default_factory=dict)
    """Runs that the edits take something from, by the object whose current run each was."""

    @property
    def model(self) -> ModelDescription:
        """That ran, or `UNKNOWN_MODEL`. No call is made: see `find_model`."""
        return self.models.known(self.result.model_digest)

    def find_model(self) -> None:
        """Ask the server for the model that ran: once, and never where `connect` was told of it."""
        self.models.find(self.result.model_digest)

    @cached_property
    def padding(self) -> RunPadding:
        """Where it has padding."""
        return RunPadding(self.result.mask)

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows it has, and how many positions each, padding included."""
        batch, n_pos = self.result.tokens.shape
        return batch, n_pos

    def n_tokens(self, row: int) -> int:
        """How many tokens a row has before its padding; all positions, where the model does not tell them apart."""
        mask = self.result.mask
        return self.shape[1] if mask is None else int(mask[row].sum())
