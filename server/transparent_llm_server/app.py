"""The composition root: the only file that knows everyone."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from transparent_llm import memory
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire.frames import LARGEST_FRAME_BYTES
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.certificates import certificates
from transparent_llm_server.config import MIB, ServerConfig
from transparent_llm_server.demo import DEMO_MODEL
from transparent_llm_server.engine import THREAD_HUNG, Engine
from transparent_llm_server.health_service import HealthService
from transparent_llm_server.identity import Identity
from transparent_llm_server.interceptors.access_log import AccessLog
from transparent_llm_server.interceptors.authentication import Authentication
from transparent_llm_server.interceptors.availability import Availability
from transparent_llm_server.interceptors.concurrency import Concurrency
from transparent_llm_server.interceptors.decoding import Decoding
from transparent_llm_server.interceptors.errors import Errors
from transparent_llm_server.interceptors.observed import Observed
from transparent_llm_server.interceptors.stalls import Stalls
from transparent_llm_server.lifecycle import Lifecycle, State
from transparent_llm_server.listener import listen_on, require_protected, socket_file_mode
from transparent_llm_server.model_config import ModelConfig
from transparent_llm_server.model_offer import model_offer
from transparent_llm_server.models.served import CompletedRun, served
from transparent_llm_server.probes import Probes
from transparent_llm_server.registry import LoadRules, Registry
from transparent_llm_server.runs import RunStore
from transparent_llm_server.servicer import TransparentLlmServicer, add_servicer
from transparent_llm_server.telemetry import Telemetry
from transparent_llm_server.tokens import TokenList

log = logging.getLogger(__name__)


class Server:
    """A server in one process. `start` listens, `load` makes it serve, `stop` drains it.

    Raises:
        InvalidRequestError: it could be reached without protection, files of tokens or certificates cannot be used, or
            metrics or traces are wanted without the libraries for them.
    """

    def __init__(self, config: ServerConfig, interceptors: Sequence[grpc.ServerInterceptor] = ()) -> None:
        self._config = config
        self._certificates = certificates(config)
        require_protected(config)
        tokens = TokenList(config.tokens_file) if config.tokens_file is not None else None
        identity = Identity(tokens, certificates=config.tls_client_ca is not None)
        self._telemetry = Telemetry(config)
        self._engine = Engine(config.queue_length, config.busy_retry_s, self._fail, self._telemetry.observer)
        self._failed, self._failure = threading.Event(), 0
        self._runs: RunStore[CompletedRun] = RunStore(
            config.run_store_bytes, config.run_ttl_s, time.monotonic, config.run_bytes_per_owner
        )
        self._registry = Registry(
            LoadRules(config.model_bytes, config.busy_retry_s, config.model_retry_s),
            on_unload=lambda model: self._runs.drop(lambda run: run.model is model),
            as_told=self._engine.as_told,
        )
        self._health = HealthService()
        self._lifecycle = Lifecycle(self._tell_health, config.busy_retry_s)
        self._stalls = Stalls(config.stall_s)
        self._grpc = grpc.server(
            concurrent.futures.ThreadPoolExecutor(config.max_streams + config.spare_threads, thread_name_prefix="call"),
            interceptors=[
                Observed([*self._telemetry.listeners, AccessLog()], identity),
                self._stalls,
                Errors(self._engine.as_told, log_prompts=config.log_prompts),
                Authentication(identity),
                Availability(self._lifecycle),
                Concurrency(config, identity),
                Decoding(config),
                *interceptors,
            ],
            options=_channel_options(config),
        )
        self._telemetry.watch(self._engine, self._runs, self._registry)
        servicer = TransparentLlmServicer(config, self._registry, self._engine, self._runs, identity.owner_of)
        add_servicer(servicer, self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpc)
        self._probes = Probes(config.probe_listen, self._health) if config.probe_listen is not None else None
        self._stopped = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)
        self.address = ""
        """Where it listens, once started: HOST:PORT or unix:PATH."""

        self.probe_address = ""
        """Where it answers probes, once started."""

    def start(self) -> str:
        """Listen; until models are loaded, calls are told LOADING. Returns the address.

        Raises:
            InvalidRequestError: an address is taken or cannot be bound.
        """
        memory.keep_freed_pages()
        listen = self._config.listen
        if self._config.is_unix:
            _remove_stale_socket(listen.removeprefix("unix:"))
        try:
            with socket_file_mode(self._config):
                credentials = self._certificates.credentials if self._certificates is not None else None
                port = listen_on(self._grpc, listen, credentials)
        except RuntimeError as error:
            raise InvalidRequestError(f"cannot listen on {listen}: is it taken by another server? ({error})") from error
        self.address = listen if self._config.is_unix else f"{listen.rpartition(':')[0]}:{port}"
        if self._probes is not None:
            self.probe_address = self._probes.start()
            log.info("answering probes on %s", self.probe_address)
        self._grpc.start()
        self._sweeper.start()
        self._telemetry.start()
        return self.address

    def load(self) -> None:
        """Load and prove the pinned models, offer those that are loaded on demand, then serve.

        Raises:
            InvalidRequestError: a model that is not there.
            TooLargeError: the pinned models do not fit into `model_bytes`.
            ModelRefusedError: a model that fails its checks.
        """
        for model in self._config.models or (ModelConfig(str(DEMO_MODEL), "demo"),):
            self._registry.offer(model_offer(self._config, model, self._engine.paused))
        self._registry.load_pinned()
        self.ready()

    def serve(self, llm: TransparentLlm, alias: str) -> None:
        """Serve a model that is in this process already."""
        model = served(alias, llm)
        self._registry.add(model)
        for check in model.description.parity:
            log.info("%s: %s %.2g (allowed %.2g)", alias, check.name, check.max_abs_error, check.tolerance)

    def ready(self) -> None:
        """All models are there: answer calls."""
        self._lifecycle.enter(State.SERVING)

    @property
    def metrics_address(self) -> str:
        """Where it serves metrics, once started: HOST:PORT; empty if it does not."""
        return self._telemetry.metrics_address

    def wait_for_failure(self) -> int:
        """Wait until nothing can be computed any more; the exit code that says why."""
        self._failed.wait()
        return self._failure

    def stop(self) -> None:
        """Announce the end, refuse new calls, let running ones finish within the drain time, free everything."""
        if self._lifecycle.state is State.SERVING and self._config.drain_announce_s and not self._failed.is_set():
            self._lifecycle.enter(State.LEAVING)
            self._failed.wait(self._config.drain_announce_s)
        self._lifecycle.enter(State.DRAINING)
        self._registry.load_no_more()
        ends_at = time.monotonic() + self._config.drain_s
        self._grpc.stop(self._config.drain_s).wait()
        self._registry.close(max(0.0, ends_at - time.monotonic()))
        if self._probes is not None:
            self._probes.stop()
        self._engine.close()
        self._stopped.set()
        self._telemetry.stop()

    def _sweep(self) -> None:
        """Runs past their time give their memory back also where nobody calls any more; so do stalled streams."""
        stall_s = self._config.stall_s or self._config.sweep_s
        hang_s = self._config.hang_s or self._config.sweep_s
        while not self._stopped.wait(min(self._config.sweep_s, stall_s / 4, hang_s / 4)):
            self._runs.expire()
            memory.give_back()
            self._telemetry.stalled(self._stalls.cut())
            self._end_if_hung()

    def _end_if_hung(self) -> None:
        if self._config.hang_s and (busy_s := self._engine.busy_s) > self._config.hang_s:
            log.critical("the model thread has been at one piece of work for %.0f s (hang_s)", busy_s)
            self._fail(THREAD_HUNG)

    def _fail(self, exit_code: int) -> None:
        """The engine can compute no more."""
        if not self._failed.is_set():
            self._failure = exit_code
            self._lifecycle.enter(State.DRAINING)
            self._failed.set()

    def _tell_health(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            self._health.set(name, status.SERVING if serving else status.NOT_SERVING)


def _channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share it
        ("grpc.max_receive_message_length", config.max_request_bytes),
        ("grpc.max_send_message_length", config.max_chunk_bytes + MIB),
        ("grpc.http2.max_frame_size", LARGEST_FRAME_BYTES),
        ("grpc.http2.min_ping_interval_without_data_ms", int(config.shortest_ping_s * 1000)),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),  # a proxy asks on idle connections too, as often as that
        ("grpc.max_metadata_size", config.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", config.max_metadata_bytes),  # between the two, chance would decide
        ("grpc.max_concurrent_streams", config.max_streams_per_connection),
        ("grpc.max_connection_age_ms", _milliseconds(config.connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(config.connection_grace_s)),
        ("grpc.max_connection_idle_ms", _milliseconds(config.connection_idle_s)),
        ("grpc.server_handshake_timeout_ms", _milliseconds(config.handshake_s)),
    ]


def _milliseconds(seconds: float) -> int:
    """For gRPC, which knows no 0 that means never."""
    return int(seconds * 1000) if seconds else 2**31 - 1


def _remove_stale_socket(path: str) -> None:
    """A socket file that nobody listens on any more is in the way of a new server."""
    if not os.path.exists(path):
        return
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        raise InvalidRequestError(f"cannot listen on unix:{path}: a file that is no socket is there")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise InvalidRequestError(f"cannot listen on unix:{path}: another server listens there")
