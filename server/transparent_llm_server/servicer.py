"""Requests in, engine, messages out: a few lines for each RPC and no tensor arithmetic."""

from __future__ import annotations

import concurrent.futures
import importlib.metadata
import platform
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import grpc
import torch

from transparent_llm import description
from transparent_llm.errors import CancelledError, DeadlineError, TooLargeError
from transparent_llm.version import API_VERSION, __version__
from transparent_llm.wire import model as wire_model
from transparent_llm.wire import runs as wire_runs
from transparent_llm.wire import tensors
from transparent_llm.wire._gen import service_pb2, service_pb2_grpc, tensor_pb2
from transparent_llm.wire.methods import METHODS
from transparent_llm_server.config import ServerConfig
from transparent_llm_server.engine import Engine
from transparent_llm_server.models.served import CompletedRun, PreparedRun, ServedModel
from transparent_llm_server.registry import Registry
from transparent_llm_server.runs import RunStore
from transparent_llm_server.streaming import ChunkSizes, etag, ready, stream

_Result = TypeVar("_Result")
_Chunks = Iterator[tensor_pb2.TensorChunk]
_Context = grpc.ServicerContext
FEATURES = ("slices", "wire_dtype", "resume", "run_tokens")


@dataclass(frozen=True)
class _Source:
    """Where a value comes from, and what names its bits."""

    reader: Any
    identity: str


class TransparentLlmServicer(service_pb2_grpc.TransparentLlmServiceServicer):
    """Answers the RPCs of service.proto."""

    def __init__(self, config: ServerConfig, registry: Registry, engine: Engine, runs: RunStore[CompletedRun]) -> None:
        self._config = config
        self._registry = registry
        self._engine = engine
        self._runs = runs
        self._nonce = uuid.uuid4().hex  # names values that this process computed from the model alone
        self._sizes = ChunkSizes(config.chunk_bytes, config.max_chunk_bytes)

    def ServerInfo(self, request: Any, context: _Context) -> Any:
        return wire_model.server_to_wire(self._describe_server())

    def ModelInfo(self, request: Any, context: _Context) -> Any:
        info = self._registry.get(request.model).description.info
        return service_pb2.ModelInfoResponse(info=wire_model.info_to_wire(info))

    def Run(self, request: Any, context: _Context) -> Any:
        model = self._registry.get(request.model)
        prepared = model.prepare(wire_runs.from_request(request))
        self._check_size(prepared)
        run_id = model.run_id(prepared)
        run = self._runs.find(run_id)
        if run is None:
            run = self._call(context, partial(self._execute, model, prepared, run_id))
        result = wire_runs.RunResult(
            run_id, run.tokens, run.mask, run.token_strings, run.nbytes, model.description.digest
        )
        return result.to_wire()

    def ReleaseRun(self, request: Any, context: _Context) -> Any:
        return service_pb2.ReleaseRunResponse(released=self._runs.release(request.run_id))

    def BatchSize(self, request: Any, context: _Context) -> Any:
        return service_pb2.BatchSizeResponse(batch_size=self._runs.get(request.run_id).tokens.shape[0])

    def TokensToStrings(self, request: Any, context: _Context) -> Any:
        self._check_count("tokens", len(request.token_ids), self._config.max_tokens_per_run)
        llm = self._registry.get(request.model).llm
        tokens = torch.tensor(request.token_ids, dtype=torch.int64)
        return service_pb2.TokensToStringsResponse(strings=llm.tokens_to_strings(tokens))

    def Tokens(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("tokens", request, context)

    def Logits(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("logits", request, context)

    def Unembed(self, request: Any, context: _Context) -> _Chunks:
        model, vector = self._registry.get(request.model), tensors.decode(request.t)
        arguments = (request.t.SerializeToString(deterministic=True), request.normalize)
        work = partial(model.llm.unembed, vector, request.normalize)
        return self._stream("unembed", request, context, work, self._nonce, arguments)

    def ResidualIn(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("residual_in", request, context)

    def ResidualAfterAttn(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("residual_after_attn", request, context)

    def ResidualOut(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("residual_out", request, context)

    def FfnOut(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("ffn_out", request, context)

    def DecomposedFfnOut(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("decomposed_ffn_out", request, context)

    def NeuronActivations(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("neuron_activations", request, context)

    def NeuronOutput(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("neuron_output", request, context)

    def AttentionMatrix(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("attention_matrix", request, context)

    def AttentionOutput(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("attention_output", request, context)

    def DecomposedAttn(self, request: Any, context: _Context) -> _Chunks:
        return self._tensor("decomposed_attn", request, context)

    def _tensor(self, name: str, request: Any, context: _Context) -> _Chunks:
        """A method whose arguments are indices: read it from its run, or from the model."""
        source = self._source(name, request)
        indices = METHODS[name].indices(request)
        work = partial(getattr(source.reader, name), *indices)
        return self._stream(name, request, context, work, source.identity, indices)

    def _source(self, name: str, request: Any) -> _Source:
        if METHODS[name].of_run:
            run = self._runs.get(request.run_id)
            return _Source(run.reader, run.nonce)
        model = self._registry.get(request.model)
        return _Source(model.llm, model.description.digest)

    def _stream(
        self,
        name: str,
        request: Any,
        context: _Context,
        work: Callable[[], torch.Tensor],
        identity: str,
        arguments: object,
    ) -> _Chunks:
        dims = METHODS[name].dims or ()
        part = self._call(context, lambda: ready(work(), dims, request.options))  # the device is the model thread's
        tag = etag(identity, name, arguments, request.options)
        yield from stream(part, name, dims, request.options, tag, self._sizes, context.is_active)

    def _call(self, context: _Context, work: Callable[[], _Result]) -> _Result:
        """Do work on the model thread, within the call's deadline and only as long as somebody waits for it."""
        future = self._engine.submit(work)
        if not context.add_callback(lambda: _drop(future)):
            future.cancel()
        remaining = min(context.time_remaining(), threading.TIMEOUT_MAX)  # without a deadline it is astronomic
        try:
            return future.result(timeout=remaining)
        except concurrent.futures.CancelledError:
            raise CancelledError("the call was cancelled before its turn came") from None
        except concurrent.futures.TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()  # done at the last moment, or a timeout of the work itself
            future.cancel()
            raise DeadlineError(f"not done within the {remaining:.1f} s that the call had left") from None
        finally:
            del future  # with an exception in it, it would keep itself and the work's tensors alive

    def _execute(self, model: ServedModel, prepared: PreparedRun, run_id: str) -> CompletedRun:
        run = self._runs.find(run_id)  # another call may have made it while this one waited
        if run is None:
            run = model.execute(prepared)
            self._runs.put(run_id, run)
        return run

    def _check_size(self, prepared: PreparedRun) -> None:
        count = len(prepared.run_input.sentences or prepared.run_input.token_ids or ())
        self._check_count("sentences", count, self._config.max_sentences_per_run)
        self._check_count("tokens", prepared.n_tokens, self._config.max_tokens_per_run)

    def _check_count(self, what: str, needed: int, allowed: int) -> None:
        if needed > allowed:
            raise TooLargeError(
                f"{needed} {what} at once, this server allows {allowed} (padding included); send fewer",
                reason="TOO_LONG",
                metadata={"needed": str(needed), "allowed": str(allowed)},
            )

    def _describe_server(self) -> description.ServerInfo:
        config = self._config
        limits = description.Limits(
            max_tokens_per_run=config.max_tokens_per_run,
            max_sentences_per_run=config.max_sentences_per_run,
            run_store_bytes=config.run_store_bytes,
            run_ttl_seconds=config.run_ttl_s,
            max_chunk_bytes=config.max_chunk_bytes,
            queue_length=config.queue_length,
        )
        return description.ServerInfo(
            api_version=API_VERSION,
            server_version=__version__,
            models=tuple(model.description for model in self._registry),
            limits=limits,
            features=FEATURES,
            versions=_library_versions(),
            stored_runs=len(self._runs),
            stored_run_bytes=self._runs.nbytes,
        )


def _drop(future: concurrent.futures.Future[Any]) -> None:
    """Work that has not begun need not begin any more."""
    future.cancel()


@cache
def _library_versions() -> dict[str, str]:
    libraries = ("torch", "transformers", "transformer-lens", "grpcio", "protobuf")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in libraries}}


def add_servicer(servicer: TransparentLlmServicer, server: grpc.Server) -> None:
    """Register it with a gRPC server."""
    service_pb2_grpc.add_TransparentLlmServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
