"""What the server needs of a model: prepare an input, run it, read the run. No gRPC here.

`ServedTransformerLens` is the real thing; `ServedTransparentLlm` serves any other implementation of the
contract, for tests of code that is written against it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from transparent_llm.contract import TransparentLlm
from transparent_llm.description import ModelDescription
from transparent_llm.errors import NotSupportedError
from transparent_llm.run_input import RunInput
from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm


@dataclass(frozen=True)
class PreparedRun:
    """An input that was checked and is ready to run."""

    run_input: RunInput
    rows: tuple[tuple[int, ...], ...] | None
    """Token ids, where they are known before the run."""

    identity: str
    """What the run is named by, besides the model and the owner."""

    @property
    def n_tokens(self) -> int:
        """Positions of the padded batch; 0 where they are not known before the run."""
        return len(self.rows) * max(map(len, self.rows)) if self.rows else 0


@dataclass(frozen=True)
class CompletedRun:
    """A run that can be read."""

    reader: Any
    """Has the run-scoped methods of the contract; what they return may be views and is not written to."""

    tokens: torch.Tensor
    mask: torch.Tensor | None
    token_strings: tuple[str, ...]
    nbytes: int
    nonce: str
    """Names this very computation: the same bits are promised only within it."""


class ServedModel(ABC):
    """A model under the name that clients use."""

    def __init__(self, alias: str, llm: TransparentLlm, description: ModelDescription) -> None:
        self.llm = llm
        self.description = dataclasses.replace(description, info=dataclasses.replace(description.info, name=alias))

    @property
    def name(self) -> str:
        """The name that clients use."""
        return self.description.info.name

    def run_id(self, prepared: PreparedRun, owner: str = "") -> str:
        """Content names the run: the same model, tokens and owner give the same id on every server."""
        return hashlib.sha256(f"{self.description.digest}/{owner}/{prepared.identity}".encode()).hexdigest()

    @abstractmethod
    def prepare(self, run_input: RunInput) -> PreparedRun:
        """Check an input and find what names it. Any thread."""

    @abstractmethod
    def execute(self, prepared: PreparedRun) -> CompletedRun:
        """Run it. Model thread."""


class ServedTransformerLens(ServedModel):
    """A `TransformerLensTransparentLlm`, read without copies."""

    llm: TransformerLensTransparentLlm

    def __init__(self, alias: str, llm: TransformerLensTransparentLlm) -> None:
        super().__init__(alias, llm, llm.describe())

    def prepare(self, run_input: RunInput) -> PreparedRun:
        """Tokenize, so that text and the token ids it stands for name the same run."""
        rows: Sequence[Sequence[int]]
        if run_input.token_ids is not None:
            rows = run_input.token_ids
            self.llm.check_tokens(rows)
        else:
            rows = self.llm.encode(list(run_input.sentences or ()))
        held = tuple(tuple(row) for row in rows)
        return PreparedRun(run_input, held, identity=json.dumps(held))

    def execute(self, prepared: PreparedRun) -> CompletedRun:
        """Forward pass on a copy, which keeps the run as its own."""
        assert prepared.rows is not None
        llm = self.llm.copy()
        llm.run_tokens([list(row) for row in prepared.rows])
        values = llm.values()
        strings = tuple(llm.tokens_to_strings(values.tokens().flatten()))
        return CompletedRun(values, values.tokens(), values.mask(), strings, values.nbytes, uuid.uuid4().hex)


class ServedTransparentLlm(ServedModel):
    """Any implementation of the contract whose `copy()` has a current run of its own."""

    def __init__(self, alias: str, llm: TransparentLlm) -> None:
        digest = hashlib.sha256(uuid.uuid4().bytes).hexdigest()  # nothing is known of its weights
        super().__init__(alias, llm, ModelDescription(llm.model_info(), digest, architecture=type(llm).__name__))

    def prepare(self, run_input: RunInput) -> PreparedRun:
        """Nothing to check: the implementation does so when it runs."""
        named = dataclasses.asdict(run_input)
        return PreparedRun(run_input, rows=None, identity=json.dumps(named))

    def execute(self, prepared: PreparedRun) -> CompletedRun:
        """Run on a copy, which keeps the run as its own."""
        llm = self.llm.copy()
        if prepared.run_input.token_ids is not None:
            llm.run_tokens([list(row) for row in prepared.run_input.token_ids])
        else:
            llm.run(list(prepared.run_input.sentences or ()))
        tokens = llm.tokens()
        strings = tuple(llm.tokens_to_strings(tokens.flatten()))
        return CompletedRun(llm, tokens, _mask(llm), strings, tokens.nbytes, uuid.uuid4().hex)


def served(alias: str, llm: TransparentLlm) -> ServedModel:
    """The fitting kind."""
    if isinstance(llm, TransformerLensTransparentLlm):
        return ServedTransformerLens(alias, llm)
    return ServedTransparentLlm(alias, llm)


def _mask(llm: TransparentLlm) -> torch.Tensor | None:
    try:
        return llm.mask()
    except NotSupportedError:
        return None
