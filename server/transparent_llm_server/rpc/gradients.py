"""Gradients: costed before anything is computed, then passes, each in its turn, and a stream of tensors."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import partial

import torch

from transparent_llm.analysis.differentiation import Differentiation
from transparent_llm.errors import NotSupportedError
from transparent_llm.wire import gradients
from transparent_llm.wire._gen import gradients_pb2
from transparent_llm.wire.form import delivery_of
from transparent_llm_server.models.differentiation.differentiated_run import DifferentiatedRun
from transparent_llm_server.models.serving import CompletedRun
from transparent_llm_server.models.values.value import Stored
from transparent_llm_server.rpc.admission import Admission
from transparent_llm_server.rpc.answers import Answers
from transparent_llm_server.rpc.caller import Caller
from transparent_llm_server.rpc.edited_runs import Sources
from transparent_llm_server.rpc.passes import Passes
from transparent_llm_server.scheduling.quotas import Quotas
from transparent_llm_server.scheduling.run_store import RunStore
from transparent_llm_server.scheduling.vector_store import VectorStore
from transparent_llm_server.streaming.chunks import Outgoing


class Gradients:
    """Of a server."""

    def __init__(
        self,
        passes: Passes,
        answers: Answers,
        admission: Admission,
        quotas: Quotas,
        runs: RunStore[CompletedRun],
        vectors: VectorStore,
    ) -> None:
        self._passes, self._answers, self._admission = passes, answers, admission
        self._quotas, self._runs, self._vectors = quotas, runs, vectors

    def stream(self, run: CompletedRun, request: gradients_pb2.GradientsRequest, caller: Caller) -> Iterator[bytes]:
        """The messages of an answer.

        Raises:
            InvalidRequestError: what makes no sense.
            NotFoundError: RUN_NOT_FOUND, with the id of a run that it takes something from.
            IndexOutOfRangeError: what it names is not there.
            NotSupportedError: the model has no gradients, or not there.
            TooLargeError: too many sites, positions or bytes.
            BusyError: too many runs wait, or QUOTA_EXCEEDED.
        """
        asked = gradients.from_wire(request, Sources(self._runs, self._vectors, caller.owner))
        positions = asked.positions(tuple(run.tokens.shape))
        with self._quotas.counted(caller.owner, "positions", positions) as took:
            begun = self._passes.computed(run.model, partial(_begun, run, asked), 1, caller)
            self._admission.require_gradients(begun.nbytes, positions)
            delivery = delivery_of(request.options)
            self._answers.require_read(_planned(asked, begun), delivery)
            for cost, step in begun.steps(self._admission.max_gradient_bytes):
                self._passes.computed(run.model, step, cost, caller)
                took(cost)
                self._passes.count(cost)
            found = self._passes.computed(run.model, begun.result, 1, caller)
        parts = [
            Outgoing(part.name, part.dims, Stored(tensor), tensor.dtype)
            for part, tensor in zip(_planned(asked, begun), gradients.tensors_of(found), strict=True)
        ]
        tag = uuid.uuid4().hex  # what broke is computed anew, and may differ in its last bits
        yield from self._answers.stream(lambda: parts, tag, delivery, caller)


def _begun(run: CompletedRun, asked: Differentiation) -> DifferentiatedRun:
    begin = getattr(run.llm, "differentiated", None)
    if begin is None:
        raise NotSupportedError(f"runs of {type(run.llm).__name__} cannot be differentiated")
    begun: DifferentiatedRun = begin(asked)
    return begun


def _planned(asked: Differentiation, begun: DifferentiatedRun) -> Iterator[Outgoing]:
    """What will be sent, of which nothing is there yet."""
    for expected, shape in zip(gradients.expected(asked, {}), begun.shapes, strict=True):
        dtype = expected.dtype or torch.float32
        yield Outgoing(expected.name, expected.dims, Stored(torch.empty(shape, dtype=dtype, device="meta")), dtype)
