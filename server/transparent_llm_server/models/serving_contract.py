"""Serving any implementation of the contract, for tests of code that is written against it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Sequence

import torch

from transparent_llm.contract import TransparentLlm
from transparent_llm.description import ModelDescription
from transparent_llm.errors import NotSupportedError
from transparent_llm.run_input import RunInput
from transparent_llm_server.models.reading import ContractReader, Reader
from transparent_llm_server.models.serving import CompletedRun, PreparedRun, ServedModel, ServedTransformerLens
from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm


class ServedTransparentLlm(ServedModel):
    """Any implementation of the contract whose `copy()` has a current run of its own."""

    def __init__(self, alias: str, llm: TransparentLlm) -> None:
        digest = hashlib.sha256(uuid.uuid4().bytes).hexdigest()  # nothing is known of its weights
        description = ModelDescription(llm.model_info(), digest, architecture=type(llm).__name__, dtype=None)
        super().__init__(alias, llm, description)

    def prepare(self, run_input: RunInput) -> PreparedRun:
        """Nothing to check: the implementation does so when it runs."""
        named = dataclasses.asdict(run_input)
        return PreparedRun(run_input, None, json.dumps(named), self.description.digest)

    def execute(self, prepared: Sequence[PreparedRun]) -> list[CompletedRun]:
        """Each on a copy, which keeps the run as its own."""
        return [self._execute(run) for run in prepared]

    def _execute(self, prepared: PreparedRun) -> CompletedRun:
        llm = self.llm.copy()
        prepared.run_input.run_on(llm)
        tokens = llm.tokens()
        nonce, digest = uuid.uuid4().hex, self.description.digest
        return CompletedRun(ContractReader(llm, tokens), llm, tokens, _mask(llm), tokens.nbytes, nonce, self, digest)

    def _reader(self) -> Reader:
        return ContractReader(self.llm)


def served_model(alias: str, llm: TransparentLlm) -> ServedModel:
    """A model to be served under a name: without copies if it is one of TransformerLens'."""
    if isinstance(llm, TransformerLensTransparentLlm):
        return ServedTransformerLens(alias, llm)
    return ServedTransparentLlm(alias, llm)


def _mask(llm: TransparentLlm) -> torch.Tensor | None:
    try:
        return llm.mask()
    except NotSupportedError:
        return None
