"""Where a client is put to the test: real servers, and what lies between them and the client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import torch

from support.certificates import Authority
from support.envoy import envoy
from support.families import build_model, build_tokenizer, hybrid_config
from support.gate import Gate, gate
from support.owners import TokenFile
from support.servers import tiny
from transparent_llm.run_input import RunInput
from transparent_llm.wire import runs
from transparent_llm.wire.methods import Stub
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.app import Server
from transparent_llm_server.config import ServerConfig
from transparent_llm_server.demo import DEMO_MODEL
from transparent_llm_server.model_config import ON_DEMAND, ModelConfig

CHUNK_BYTES = 65_536
Models = dict[str, TransformerLensTransparentLlm]


@cache
def demo_model(dtype: torch.dtype = torch.float32) -> TransformerLensTransparentLlm:
    """The embedded model, loaded once."""
    return TransformerLensTransparentLlm(str(DEMO_MODEL), dtype=dtype)


@cache
def hybrid_model() -> TransformerLensTransparentLlm:
    """One whose first layer has no attention."""
    return TransformerLensTransparentLlm("hybrid", hf_model=build_model(hybrid_config()), tokenizer=build_tokenizer())


MODELS: dict[str, Callable[[], Models]] = {
    "main": lambda: {"demo": demo_model()},
    "secure": lambda: {"demo": demo_model()},
    "many": lambda: {"demo": demo_model(), "half": demo_model(torch.bfloat16), "hybrid": hybrid_model()},
    "sleeping": lambda: {"demo": demo_model()},
    "other": lambda: {"demo": tiny()},
}
"""What the servers serve, under which names. "sleeping" loads its model when it is first asked for it."""


class Ears(grpc.ServerInterceptor):
    """Hears every call with its metadata, and which streams their clients left early."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.someone_left = threading.Event()

    def intercept_service(self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails) -> Any:
        handler: Any = continuation(details)
        metadata = {str(key): str(value) for key, value in details.invocation_metadata}
        self.calls.append((str(details.method).rpartition("/")[2], metadata))
        if handler is None or handler.unary_stream is None:
            return handler

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            ended = threading.Event()
            if not context.add_callback(lambda: ended.is_set() or self.someone_left.set()):
                self.someone_left.set()  # it had left before anything was done
            try:
                yield from handler.unary_stream(request, context)
            finally:
                if context.is_active():  # also where the server itself refuses
                    ended.set()

        return grpc.unary_stream_rpc_method_handler(stream, handler.request_deserializer, handler.response_serializer)


class Stage:
    """Servers behind one gate. `through_envoy` puts Envoy before each, as browsers need."""

    def __init__(self, gate: Gate, fronts: dict[str, str], ears: Ears, access: dict[str, str]) -> None:
        self.gate = gate
        self.ears = ears
        self.access = access
        """What a client needs for the server "secure": `tls_ca` and `token`."""
        self._fronts = fronts

    def lead_to(self, server: str) -> None:
        """Clients reach this server from now on."""
        self.gate.open()
        self.gate.lead_to(self._fronts[server])

    def release(self, run_input: RunInput) -> None:
        """Make the server "main" forget a run, whose id is known from running it once more."""
        with grpc.insecure_channel(self._fronts["direct"]) as channel:
            stub: Any = Stub(channel)
            run_id = stub.Run(runs.to_request(run_input, ""), timeout=60).run_id
            assert stub.ReleaseRun(runs.release_request(run_id), timeout=60).released


@contextmanager
def stage(folder: Path, *, through_envoy: bool) -> Iterator[Stage]:
    """All of it, until the block ends."""
    authority, tokens = Authority(folder / "authority"), TokenFile(folder / "tokens", "owner")
    certificate = authority.issue("localhost", "127.0.0.1")
    settings: dict[str, Any] = {
        "secure": {**certificate.as_server, "tokens_file": tokens.path, "listen": "localhost:0"},
        "sleeping": {"models": (ModelConfig(str(DEMO_MODEL), "demo", load=ON_DEMAND),), "device": "cpu"},
    }
    ears, fronts = Ears(), {}
    with ExitStack() as stack:
        for name in MODELS:
            if name == "secure" and through_envoy:
                continue
            server = stack.enter_context(_serving(name, ears, **settings.get(name, {})))
            fronts[name] = server.replace("localhost", "127.0.0.1")
            if name == "main":
                fronts["direct"] = server
            if through_envoy:
                fronts[name] = stack.enter_context(_envoy(server, folder / name))
        access = {"tls_ca": str(authority.path), "token": tokens.tokens["owner"]}
        yield Stage(stack.enter_context(gate(fronts["main"])), fronts, ears, access)


@contextmanager
def _serving(name: str, ears: Ears, **settings: Any) -> Iterator[str]:
    usual = {"listen": "127.0.0.1:0", "drain_s": 1.0, "chunk_bytes": CHUNK_BYTES}
    server = Server(ServerConfig(**(usual | settings)), [ears])
    try:
        address = server.start()
        if "models" in settings:
            server.load()
        else:
            for alias, model in MODELS[name]().items():
                server.serve(model, alias)
            server.ready()
        yield address
    finally:
        server.stop()


@contextmanager
def _envoy(server: str, folder: Path) -> Iterator[str]:
    host, _, port = server.rpartition(":")
    with envoy(int(port), folder, host=host) as proxy:
        proxy.await_healthy(host)
        yield proxy.address
