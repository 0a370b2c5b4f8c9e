"""Requests in, engine, messages out: a few lines for each RPC and no tensor arithmetic."""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import grpc
from google.protobuf.message import Message

from transparent_llm.errors import NotFoundError
from transparent_llm.wire import model as wire_model
from transparent_llm.wire import runs as wire_runs
from transparent_llm.wire import tensors
from transparent_llm.wire._gen import generation_pb2, gradients_pb2, service_pb2, sweeps_pb2, tensor_pb2
from transparent_llm.wire.form import Form, delivery_of, form_of
from transparent_llm.wire.methods import METHODS
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.models.reading import Reader
from transparent_llm_server.models.serving import CompletedRun, ServedModel
from transparent_llm_server.registry.registry import Registry
from transparent_llm_server.rpc import kept_vectors
from transparent_llm_server.rpc.admission import Admission
from transparent_llm_server.rpc.analyses import reader_of
from transparent_llm_server.rpc.answers import Answers
from transparent_llm_server.rpc.caller import Caller
from transparent_llm_server.rpc.compared_runs import compare
from transparent_llm_server.rpc.datasets import Datasets
from transparent_llm_server.rpc.edited_runs import edited
from transparent_llm_server.rpc.generations import Generations
from transparent_llm_server.rpc.gradients import Gradients
from transparent_llm_server.rpc.intake import Intake
from transparent_llm_server.rpc.passes import Passes
from transparent_llm_server.rpc.prepared_runs import PreparedRuns
from transparent_llm_server.rpc.server_info import server_info
from transparent_llm_server.rpc.sweeps import Sweeps, require_of_plan
from transparent_llm_server.rpc.vector_tokens import top_tokens
from transparent_llm_server.scheduling.engine import Engine
from transparent_llm_server.scheduling.generation_bytes import GenerationBytes
from transparent_llm_server.scheduling.quotas import Quotas, allowed_by
from transparent_llm_server.scheduling.run_queue import RunQueue
from transparent_llm_server.scheduling.run_store import RunStore
from transparent_llm_server.scheduling.tokenizing import Tokenizing
from transparent_llm_server.scheduling.vector_store import VectorStore
from transparent_llm_server.streaming.chunks import Outgoing, etag

log = logging.getLogger(__name__)
_Frames = Iterator[bytes]
"""Serialized TensorChunks."""

_Context = grpc.ServicerContext


class _RunNamed(Protocol):
    run_id: str


class _OfRun(_RunNamed, Protocol):
    options: tensor_pb2.TensorOptions


class _OfModel(Protocol):
    model: str
    model_digest: str
    options: tensor_pb2.TensorOptions


class TransparentLlmServicer:
    """Answers the RPCs of service.proto. Those that read a tensor of a run, or of weights, are alike: the table makes
    them below."""

    def __init__(
        self,
        config: ServerConfig,
        registry: Registry,
        engine: Engine,
        runs: RunStore[CompletedRun],
        tokenizing: Tokenizing,
        owner_of: Callable[[_Context], str],
    ) -> None:
        self.quotas = Quotas(time.monotonic, allowed_by(config))
        """What owners take over time."""

        self.queue = RunQueue(engine, runs, registry.hold, self.quotas)
        """Of runs that are to be computed."""

        self.vectors = VectorStore(kept_vectors.budget_of(config), time.monotonic)
        """That owners keep for their edits."""

        self._admission = Admission(config)
        self._answers = Answers(config, engine, self._admission, self.quotas)
        self.intake = Intake(self._admission, tokenizing)
        """Reads what calls bring for a tokenizer."""

        passes = Passes(engine, self.queue)
        self._sweeps = Sweeps(passes, self._admission, self.quotas, runs, self.vectors)
        self._gradients = Gradients(passes, self._answers, self._admission, self.quotas, runs, self.vectors)
        self._prepared_runs = PreparedRuns(config, self.queue, runs)
        remembered = GenerationBytes(config.generation_bytes, config.busy_retry_s)
        of_rows = (self._admission, self.quotas, runs, self.vectors, self.intake, self._prepared_runs, remembered)
        self.generations = Generations(engine, passes, *of_rows)
        self._datasets = Datasets(config.datasets)
        self._config = config
        self._registry = registry
        self._engine = engine
        self._runs = runs
        self._owner_of = owner_of
        self._nonce = uuid.uuid4().hex  # names values that this process computed from the model alone

    def ServerInfo(self, request: service_pb2.ServerInfoRequest, context: _Context) -> service_pb2.ServerInfoResponse:
        told = server_info(self._config, self._registry, self._datasets, self._runs, self._owner_of(context))
        return wire_model.server_to_wire(told)

    def Dataset(self, request: service_pb2.DatasetRequest, context: _Context) -> service_pb2.DatasetResponse:
        return service_pb2.DatasetResponse(sentences=self._datasets.sentences(request.name))

    def ModelInfo(self, request: service_pb2.ModelInfoRequest, context: _Context) -> service_pb2.ModelInfoResponse:
        with self._registry.use(request.model) as model:
            return service_pb2.ModelInfoResponse(info=wire_model.info_to_wire(model.description.info))

    def Run(self, request: service_pb2.RunRequest, context: _Context) -> bytes:
        caller = self._caller(context)
        with self._registry.use(request.model) as model:
            prepared = self.intake.prepared(model, request, caller)
            prepared = edited(model, prepared, request, self._runs, self.vectors, caller.owner)
            run_id, run = self._prepared_runs.completed(model, prepared, caller, tells_place=True)
            unedited_id = model.unedited_run_id(prepared, caller.owner)

            def answer() -> service_pb2.RunResponse:
                strings = tuple(model.strings(run.tokens.flatten().tolist()))
                told = (run.nbytes, run.digest, run.warnings, run.effects, unedited_id)
                return wire_runs.RunResult(run_id, run.tokens, run.mask, strings, *told).to_wire()

            return self.intake.answer(model, run.tokens.numel(), answer, caller)

    def Generate(self, request: generation_pb2.GenerateRequest, context: _Context) -> _Frames:
        caller = self._caller(context)
        with self._registry.use(request.model) as model:
            yield from self.generations.stream(model, request, caller)

    def ReleaseRun(self, request: service_pb2.ReleaseRunRequest, context: _Context) -> service_pb2.ReleaseRunResponse:
        return service_pb2.ReleaseRunResponse(released=self._runs.release(request.run_id, self._owner_of(context)))

    def KeepVector(self, request: service_pb2.KeepVectorRequest, context: _Context) -> service_pb2.KeepVectorResponse:
        return kept_vectors.keep(request, self.vectors, self._owner_of(context))

    def ListVectors(
        self, request: service_pb2.ListVectorsRequest, context: _Context
    ) -> service_pb2.ListVectorsResponse:
        return kept_vectors.listed(self.vectors, self._owner_of(context))

    def DropVector(self, request: service_pb2.DropVectorRequest, context: _Context) -> service_pb2.DropVectorResponse:
        return service_pb2.DropVectorResponse(dropped=self.vectors.drop(request.name, self._owner_of(context)))

    def CompareRuns(
        self, request: service_pb2.CompareRunsRequest, context: _Context
    ) -> service_pb2.CompareRunsResponse:
        with self._held_run(request, context) as run:
            other = self._runs.get(request.other_run_id, self._owner_of(context))
            from_pos = request.from_pos if request.HasField("from_pos") else None
            return compare(run, other, from_pos, self._answers, self._caller(context))

    def BatchSize(self, request: service_pb2.BatchSizeRequest, context: _Context) -> service_pb2.BatchSizeResponse:
        return service_pb2.BatchSizeResponse(
            batch_size=self._runs.get(request.run_id, self._owner_of(context)).tokens.shape[0]
        )

    def TokensToStrings(self, request: service_pb2.TokensToStringsRequest, context: _Context) -> bytes:
        self._admission.require_tokens(len(request.token_ids))
        caller = self._caller(context)
        with self._registry.use(request.model) as model:
            _require_digest(request.model_digest, model)

            def answer() -> service_pb2.TokensToStringsResponse:
                return service_pb2.TokensToStringsResponse(strings=model.strings(list(request.token_ids)))

            return self.intake.answer(model, len(request.token_ids), answer, caller)

    def Tokenize(self, request: service_pb2.TokenizeRequest, context: _Context) -> bytes:
        caller = self._caller(context)
        with self._registry.use(request.model) as model:
            _require_digest(request.model_digest, model)
            return self.intake.tokenized(model, request, caller)

    def Unembed(self, request: service_pb2.UnembedRequest, context: _Context) -> _Frames:
        arguments = (tensors.decode(request.t), request.normalize)
        named = (_digest_of(request.t), request.normalize)
        with self._registry.use(request.model) as model:
            identity = f"{self._nonce}/{_require_digest(request.model_digest, model)}"
            tag_of = partial(etag, identity, "unembed", named)
            yield from self._value(model.read, "unembed", arguments, request, context, tag_of)

    def TopTokens(self, request: service_pb2.TopTokensRequest, context: _Context) -> service_pb2.TopTokensResponse:
        with self._registry.use(request.model) as model:
            _require_digest(request.model_digest, model)
            return top_tokens(model, request, self._answers, self._caller(context))

    def Fetch(self, request: service_pb2.FetchRequest, context: _Context) -> _Frames:
        caller = self._caller(context)
        with self._held_run(request, context) as run:
            parts = partial(self._answers.parts_of_all, reader_of(run), request, caller)
            named = _digest_of(service_pb2.PlanRequest(items=request.items))
            tag = etag(run.nonce, "fetch", named, form_of(request.options))
            yield from self._answers.stream(parts, tag, delivery_of(request.options), caller)

    def Plan(self, request: service_pb2.PlanRequest, context: _Context) -> service_pb2.PlanResponse:
        caller = self._caller(context)
        with self._held_run(request, context) as run:
            headers = [
                tensors.header(part.name, part.dtype, part.value.shape, part.dims)
                for part in self._planned(run, request, caller)
            ]
            sweep = None
            if request.HasField("sweep"):
                require_of_plan(request.sweep, request.run_id)
                sweep = self._sweeps.plan(run, request.sweep, caller)
        return service_pb2.PlanResponse(
            tensors=headers,
            sweep=sweep,
            total_bytes=sum(header.total_bytes for header in headers),
            max_read_bytes=self._config.max_read_bytes,
        )

    def _planned(self, run: CompletedRun, request: service_pb2.PlanRequest, caller: Caller) -> Iterable[Outgoing]:
        """Of its reads, of which it needs none where it has a sweep."""
        if request.HasField("sweep") and not request.items:
            return ()
        return self._answers.parts_of_all(reader_of(run), request, caller)

    def Sweep(self, request: sweeps_pb2.SweepRequest, context: _Context) -> _Frames:
        caller = self._caller(context)
        with self._held_run(request, context) as run:
            yield from self._sweeps.stream(run, request, caller)

    def Gradients(self, request: gradients_pb2.GradientsRequest, context: _Context) -> _Frames:
        caller = self._caller(context)
        with self._held_run(request, context) as run:
            yield from self._gradients.stream(run, request, caller)

    @contextmanager
    def _held_run(self, request: _RunNamed, context: _Context) -> Iterator[CompletedRun]:
        """The run that a request names, whose model stays loaded within this block."""
        run = self._runs.get(request.run_id, self._owner_of(context))
        with self._registry.hold(run.model):
            yield run

    def _caller(self, context: _Context) -> Caller:
        return Caller(context, self._owner_of(context))

    def _of_run(self, name: str, request: _OfRun, context: _Context) -> _Frames:
        with self._held_run(request, context) as run:
            arguments = METHODS[name].arguments_of(request)
            tag_of = partial(etag, run.nonce, name, arguments)
            yield from self._value(reader_of(run), name, arguments, request, context, tag_of)

    def _of_weights(self, name: str, request: _OfModel, context: _Context) -> _Frames:
        """A value of the model alone, which is the same in every process that serves it."""
        with self._registry.use(request.model) as model:
            digest = _require_digest(request.model_digest, model)
            arguments = METHODS[name].arguments_of(request)
            tag_of = partial(etag, digest, name, arguments)
            yield from self._value(model.read, name, arguments, request, context, tag_of)

    def _value(
        self,
        read: Reader,
        name: str,
        arguments: tuple[object, ...],
        request: _OfRun | _OfModel,
        context: _Context,
        tag_of: Callable[[Form], str],
    ) -> _Frames:
        """One value in the form that the request wants, under the etag that `tag_of` gives it in that form."""
        caller, form = self._caller(context), form_of(request.options)
        parts = self._answers.parts(read, name, arguments, form, caller)
        return self._answers.stream(lambda: parts, tag_of(form), delivery_of(request.options), caller)


def _read_of_run(name: str) -> Callable[[TransparentLlmServicer, _OfRun, _Context], _Frames]:
    def read(self: TransparentLlmServicer, request: _OfRun, context: _Context) -> _Frames:
        return self._of_run(name, request, context)

    return read


def _read_of_weights(name: str) -> Callable[[TransparentLlmServicer, _OfModel, _Context], _Frames]:
    def read(self: TransparentLlmServicer, request: _OfModel, context: _Context) -> _Frames:
        return self._of_weights(name, request, context)

    return read


for _method in METHODS.values():
    if _method.dims is not None and not hasattr(TransparentLlmServicer, _method.rpc):
        _read = _read_of_run if _method.of_run else _read_of_weights
        setattr(TransparentLlmServicer, _method.rpc, _read(_method.name))


def _require_digest(wanted: str, model: ServedModel) -> str:
    """Refuse to give what belongs to another model than the one that was meant, if one was; the digest of this one."""
    model.renew()
    served = model.description.digest
    if wanted not in ("", served):
        raise NotFoundError(
            "a different model is now served under this name; run again to read it",
            reason="MODEL_CHANGED",
            metadata={"was": wanted, "is": served},
        )
    return served


def _digest_of(message: Message) -> str:
    """Names what a request says, where that can be long."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()
