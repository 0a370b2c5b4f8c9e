"""Where a client is put to the test: real servers, and what lies between them and the client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import torch

from conformance import lies
from support.deploy.envoy import envoy_before
from support.models.families import build_model, build_tokenizer, hybrid_config
from support.models.saes import random_sae
from support.network.gate import Gate, gate
from support.servers.certificates import Authority
from support.servers.owners import BearerTokenFile
from support.servers.servers import Listener, running, tiny, when_over
from support.servers.stub import stub
from transparent_llm.errors import BusyError
from transparent_llm.wire import requests, status
from transparent_llm.wire.rpcs import RPCS
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.config.model import ON_DEMAND, ModelConfig
from transparent_llm_server.demo import DEMO_MODEL

CHUNK_BYTES = 65_536
D_MODEL = 128
SAE_SITE = "residual_out.1"
"""Of the demo model: how wide it is, and where its sparse autoencoder "random" belongs."""

CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
_OURS = frozenset(rpc.name for rpc in RPCS)
Models = dict[str, TransformerLensTransparentLlm]


@cache
def demo_model(dtype: torch.dtype = torch.float32) -> TransformerLensTransparentLlm:
    """The embedded model, loaded once, with a sparse autoencoder of 24 features."""
    saes = {"random": (random_sae(D_MODEL), SAE_SITE)}
    return TransformerLensTransparentLlm(str(DEMO_MODEL), dtype=dtype, saes=saes)


@cache
def hybrid_model() -> TransformerLensTransparentLlm:
    """One whose first layer has no attention, and which knows chats."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    return TransformerLensTransparentLlm("hybrid", hf_model=build_model(hybrid_config()), tokenizer=tokenizer)


MODELS: dict[str, Callable[[], Models]] = {
    "main": lambda: {"demo": demo_model()},
    "second": lambda: {"demo": demo_model()},
    "secure": lambda: {"demo": demo_model()},
    "many": lambda: {"demo": demo_model(), "half": demo_model(torch.bfloat16), "hybrid": hybrid_model()},
    "sleeping": lambda: {"demo": demo_model()},
    "other": lambda: {"demo": tiny()},
}
"""What the servers serve, under which names. "sleeping" loads its model when it is first asked for it."""


class Call(NamedTuple):
    """One that a server heard."""

    server: str
    rpc: str
    metadata: dict[str, str]


class Ear(grpc.ServerInterceptor):
    """Of one server: writes down what it hears, among what others hear."""

    def __init__(self, server: str, heard: list[Call]) -> None:
        self._server, self._heard = server, heard

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        metadata = {str(key): str(value) for key, value in details.invocation_metadata}
        self._heard.append(Call(self._server, str(details.method).rpartition("/")[2], metadata))
        return continuation(details)


class Ears(Listener):
    """Also hears which streams their clients left early, has the servers tell a lie (lies.py), or have no room."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Call] = []
        """By all servers, in the order in which calls came."""

        self.someone_left = threading.Event()
        self.lie: str | None = None
        self.refusals: list[BusyError] = []
        """Of the next calls, one each."""

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        handler: Any = super().intercept_service(continuation, details)
        if handler is None or handler.unary_unary is None:
            return handler
        rpc = str(details.method).rpartition("/")[2]
        if rpc not in _OURS:  # a proxy asks for health when it likes
            return handler

        def told(request: Any, context: grpc.ServicerContext) -> Any:
            self._refuse(context)
            return lies.answer(self.lie, rpc, handler.unary_unary(request, context))

        return grpc.unary_unary_rpc_method_handler(told, handler.request_deserializer, handler.response_serializer)

    def _refuse(self, context: grpc.ServicerContext) -> None:
        if self.refusals:
            refusal = self.refusals.pop()
            context.set_trailing_metadata(((status.DETAILS_KEY, status.to_status(refusal).SerializeToString()),))
            context.abort(status.code_of(refusal), refusal.message)

    def _streamed(
        self, answer: Callable[..., Iterator[Any]], request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        self._refuse(context)
        ended = threading.Event()
        when_over(context, lambda: None if ended.is_set() else self.someone_left.set())
        try:
            for message in answer(request, context):
                yield lies.message(self.lie, message)
        finally:
            if context.is_active():  # also where the server itself refuses
                ended.set()


class Stage:
    """Servers behind one gate. `through_envoy` puts Envoy before each, as browsers need."""

    def __init__(self, gate: Gate, main: str, fronts: dict[str, str], ears: Ears, access: dict[str, str]) -> None:
        self.gate = gate
        self.ears = ears
        self.access = access
        """What a client needs for the server "secure": `tls_ca` and `token`."""
        self.fronts = fronts
        """The address of each server, or of what lies before it."""

        self._main = main

    def lead_to(self, server: str) -> None:
        """Clients reach this server from now on, which tells no lies."""
        self.ears.lie = None
        self.gate.open()
        self.gate.lead_to(self.fronts[server])

    def run(self, request: Any) -> str:
        """Ask the server "main" for a run; its name."""
        with grpc.insecure_channel(self._main) as channel:
            return str(stub(channel).Run(request, timeout=60).run_id)

    def release(self, run_id: str) -> None:
        """Make the server "main" forget a run that it has."""
        with grpc.insecure_channel(self._main) as channel:
            assert stub(channel).ReleaseRun(requests.release(run_id), timeout=60).released


@contextmanager
def stage(folder: Path, *, through_envoy: bool) -> Iterator[Stage]:
    """All of it, until the block ends."""
    authority, bearer_tokens = Authority(folder / "authority"), BearerTokenFile(folder / "tokens", "owner")
    certificate = authority.issue("localhost", "127.0.0.1")
    settings: dict[str, Any] = {
        "secure": {**certificate.as_server, "tokens_file": bearer_tokens.path, "listen": "localhost:0"},
        "sleeping": {"models": (ModelConfig(str(DEMO_MODEL), "demo", load=ON_DEMAND),), "device": "cpu"},
    }
    ears, direct, fronts = Ears(), dict[str, str](), dict[str, str]()
    with ExitStack() as stack:
        for name in MODELS:
            if name == "secure" and through_envoy:
                continue
            usual = {"listen": "127.0.0.1:0", "chunk_bytes": CHUNK_BYTES}
            server = running(Ear(name, ears.heard), ears, serving=MODELS[name](), **{**usual, **settings.get(name, {})})
            direct[name] = stack.enter_context(server).address
            fronts[name] = direct[name].replace("localhost", "127.0.0.1")
            if through_envoy:
                fronts[name] = stack.enter_context(envoy_before(direct[name], folder / name)).address
        access = {"tls_ca": str(authority.path), "token": bearer_tokens.bearer_tokens["owner"]}
        yield Stage(stack.enter_context(gate(fronts["main"])), direct["main"], fronts, ears, access)
