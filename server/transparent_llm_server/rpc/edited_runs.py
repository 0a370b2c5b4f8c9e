"""Edits of a run that a request brings, and what they take from other runs and from kept vectors."""

from __future__ import annotations

import dataclasses

import torch

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import TooLargeError
from transparent_llm.interventions import Vector
from transparent_llm.interventions.vector import Literal
from transparent_llm.wire import interventions
from transparent_llm.wire._gen import service_pb2
from transparent_llm_server.models.serving import CompletedRun, PreparedRun, ServedModel
from transparent_llm_server.scheduling.run_store import RunStore
from transparent_llm_server.scheduling.vector_store import VectorStore

_MOST_VECTOR_BYTES = 4 * 2**20
"""Of kept vectors that the edits of one run use: as much as a request could bring. A run that waits holds them."""


def edited(
    model: ServedModel,
    prepared: PreparedRun,
    request: service_pb2.RunRequest,
    runs: RunStore[CompletedRun],
    vectors: VectorStore,
    owner: str,
) -> PreparedRun:
    """A prepared run with the edits of its request. What they take from is of the same owner.

    Raises:
        InvalidRequestError: an edit is not whole, or makes no sense.
        NotFoundError: RUN_NOT_FOUND or VECTOR_NOT_FOUND, with the id or digest of what is not there.
        IndexOutOfRangeError: what it names is not there.
        NotSupportedError: the model cannot be edited, or not there.
        TooLargeError: too many edits, or too many bytes of kept vectors.
    """
    sources = Sources(runs, vectors, owner)
    found = model.edited(prepared, interventions.from_wire(request.edits, sources), sources.ids.__getitem__)
    return dataclasses.replace(found, sources=tuple(sources.runs.values())) if sources.runs else found


class Sources:
    """Of the edits of one run or sweep of an owner."""

    def __init__(self, runs: RunStore[CompletedRun], vectors: VectorStore, owner: str) -> None:
        self._stored, self._vectors, self._owner = runs, vectors, owner
        self._tensors: dict[str, torch.Tensor] = {}
        self.runs: dict[str, CompletedRun] = {}
        self.ids: dict[TransparentLlm, str] = {}

    def run_of(self, run_id: str) -> TransparentLlm:
        """An object whose current run has this id."""
        if run_id not in self.runs:  # one object, also if the run is made again meanwhile
            self.runs[run_id] = self._stored.get(run_id, self._owner)
        llm = self.runs[run_id].llm
        self.ids[llm] = run_id
        return llm

    def vector_of(self, digest: str) -> Vector:
        """A kept vector."""
        if digest not in self._tensors:
            self._tensors[digest] = self._vectors.get(digest, self._owner)
            nbytes = sum(tensor.nbytes for tensor in self._tensors.values())
            if nbytes > _MOST_VECTOR_BYTES:
                raise TooLargeError(
                    f"the edits of one run use kept vectors of {nbytes} bytes, at most {_MOST_VECTOR_BYTES} can be",
                    metadata={"needed": str(nbytes), "allowed": str(_MOST_VECTOR_BYTES)},
                )
        return Literal(self._tensors[digest])
