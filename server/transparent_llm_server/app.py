"""The composition root: the only file that knows everyone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.runtime import memory
from transparent_llm.wire.methods import ADMIN_SERVICE, SERVICE
from transparent_llm_server.access.access import Access
from transparent_llm_server.access.audit_log import AuditLog
from transparent_llm_server.access.exposure import require_protected, socket_file_mode
from transparent_llm_server.config.model import DEMO, ModelConfig
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.ending import ends, until
from transparent_llm_server.health.canary import Canary
from transparent_llm_server.health.probes import Probes
from transparent_llm_server.health.service import HealthService
from transparent_llm_server.http.endpoint import Endpoint
from transparent_llm_server.incidents import incident
from transparent_llm_server.lifecycle import Lifecycle, State
from transparent_llm_server.models.serving import CompletedRun
from transparent_llm_server.models.serving_contract import served_model
from transparent_llm_server.registry.registry import LoadRules, Registry
from transparent_llm_server.registry.source import model_source
from transparent_llm_server.rpc.administration import AdminServicer
from transparent_llm_server.rpc.channel_options import channel_options
from transparent_llm_server.rpc.concurrency.in_flight import Phase
from transparent_llm_server.rpc.concurrency.lanes import QUEUED_CALLS, Lanes
from transparent_llm_server.rpc.concurrency.threads import ReadyThreads
from transparent_llm_server.rpc.interceptors.arrival import Arrival
from transparent_llm_server.rpc.interceptors.authentication import Authentication
from transparent_llm_server.rpc.interceptors.availability import Availability
from transparent_llm_server.rpc.interceptors.call_events import CallEvents
from transparent_llm_server.rpc.interceptors.concurrency import Concurrency
from transparent_llm_server.rpc.interceptors.errors import Errors
from transparent_llm_server.rpc.listener import bound_address, listen_on
from transparent_llm_server.rpc.registration import add_admin_servicer, add_servicer
from transparent_llm_server.rpc.servicer import TransparentLlmServicer
from transparent_llm_server.scheduling.engine import THREAD_HUNG, Engine
from transparent_llm_server.scheduling.run_store import RunStore
from transparent_llm_server.scheduling.tokenizing import Tokenizing
from transparent_llm_server.telemetry import Telemetry
from transparent_llm_server.telemetry.access_log import AccessLog

log = logging.getLogger(__name__)
_LAST_ANSWERS_S = 0.25
"""After the drain time: for DRAINING to reach those who still wait; then, for connections to close."""

_REST_S = 0.5
"""After that: for threads to come to the end of what they are at."""

_RECORDS_S = 5.0
"""For the last spans, and the last lines of the audit log; without a slow collector or disk they take no time."""

SERVING_LOST = 73
"""Exit code of a process that answers no calls any more, as the engine's are of one that computes no more."""


class Server:
    """A server in one process. `start` listens, `load` makes it serve, `stop` drains it.

    Raises:
        InvalidRequestError: it could be reached without protection, files of tokens or certificates cannot be used, or
            metrics or traces are wanted without the libraries for them.
    """

    def __init__(self, config: ServerConfig, interceptors: Sequence[grpc.ServerInterceptor] = ()) -> None:
        self._config = config
        self._audit = AuditLog(config.audit_log)
        self._access = Access(config, self._audit.tell)
        self._page = Endpoint(config, self._access, self._access.contexts) if config.page is not None else None
        require_protected(config)
        identity = self._access.identity
        self._telemetry, self._access_log = Telemetry(config), AccessLog()
        self._engine = Engine(config.queue_length, config.busy_retry_s, self._fail, self._telemetry.work_events)
        self._tokenizing = Tokenizing(config.queue_length, config.busy_retry_s)
        self._failed, self._failure, self._to_end = threading.Event(), 0, threading.Event()
        self._runs: RunStore[CompletedRun] = RunStore(
            config.run_store_bytes, config.run_ttl_s, time.monotonic, config.run_bytes_per_owner
        )
        self._registry = Registry(
            LoadRules(config.model_bytes, config.busy_retry_s, config.model_retry_s),
            on_unload=lambda model: self._runs.drop(lambda run: run.model is model),
            translate=self._engine.translate,
        )
        self._health, self._is_answering = HealthService(), True
        self._lifecycle = Lifecycle(self._tell_health, config.busy_retry_s)
        self._canary = Canary(config.canary_s, self._tell_answering, lambda: self._fail(SERVING_LOST))
        self._lanes = Lanes(config, identity.owner_of)
        self._threads = ReadyThreads(config.max_streams + config.spare_threads, "call")
        self._grpc = grpc.server(
            self._threads,
            interceptors=[
                self._canary,
                CallEvents([*self._telemetry.listeners, self._access_log, self._audit], identity),
                Errors(self._engine.translate, log_prompts=config.log_prompts),
                Authentication(identity),
                Availability(self._lifecycle),
                Concurrency(self._lanes.of),
                Arrival(),
                *interceptors,
            ],
            options=channel_options(config),
            maximum_concurrent_rpcs=config.max_streams + config.spare_threads + self._lanes.own_threads + QUEUED_CALLS,
        )
        servicer = TransparentLlmServicer(
            config, self._registry, self._engine, self._runs, self._tokenizing, identity.owner_of
        )
        self._quotas, self._vectors = servicer.quotas, servicer.vectors
        self._telemetry.watch(self._engine, servicer.queue, self._runs, self._registry)
        add_servicer(servicer, self._grpc)
        services = [SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
        if config.admin_tokens_file is not None:
            admin = AdminServicer(self._runs, servicer.queue, servicer.quotas, self._to_end.set)
            add_admin_servicer(admin, self._grpc)
            services.append(ADMIN_SERVICE)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection(services, self._grpc)
        self._probes = Probes(config.probe_listen, self._health, config) if config.probe_listen is not None else None
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
        try:
            with socket_file_mode(self._config):
                certificates = self._access.certificates
                credentials = certificates.credentials if certificates is not None else None
                port = listen_on(self._grpc, listen, credentials)
        except RuntimeError as error:
            raise InvalidRequestError(
                f"cannot listen on {listen}: is it in use by another server? ({error})"
            ) from error
        self._canary.listen(self._grpc)
        if self._page is not None:
            self._page.listen(self._grpc)
        self.address = bound_address(listen, port)
        if self._probes is not None:
            self.probe_address = self._probes.start()
            log.info("answering probes on %s", self.probe_address)
        self._audit.start(address=self.address, authentication=self._config.has_authentication)
        self._access_log.start()
        self._grpc.start()
        self._sweeper.start()
        self._canary.start()
        if self._page is not None:
            self._page.start()
            log.info("page on %s", self.page_address)
        self._telemetry.start()
        return self.address

    def load(self) -> None:
        """Load and check the pinned models, offer those that are loaded on demand, then serve.

        Raises:
            InvalidRequestError: a model that is not there.
            TooLargeError: the pinned models do not fit into `model_bytes`.
            ModelRefusedError: a model that fails its checks.
        """
        for model in self._config.models or (ModelConfig.parse(DEMO),):
            self._registry.offer(model_source(self._config, model, self._engine.paused))
        self._registry.load_pinned()
        self.ready()

    def serve(self, llm: TransparentLlm, alias: str) -> None:
        """Serve a model that is in this process already."""
        model = served_model(alias, llm)
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

    @property
    def page_address(self) -> str:
        """Where browsers get the page, once started: http://HOST:PORT or https://HOST:PORT; empty if nowhere."""
        return self._page.address if self._page is not None else ""

    def wait_for_end(self) -> int:
        """Wait until nothing can be computed any more: the exit code that says why; or until an administrator has the
        server drain: 0."""
        self._to_end.wait()
        return self._failure

    def read_files_again(self) -> None:
        """Of tokens and certificates, now, and say in the log what came of it; they are also watched."""
        self._access.read_again()

    def stop(self) -> list[str]:
        """Announce the end, refuse new calls, let running ones finish within the drain time, free everything.

        Returns within a short time after that, whatever goes on: what did not end, in words, is left alone.
        """
        if self._lifecycle.state is State.SERVING and self._config.drain_announce_s and not self._failed.is_set():
            self._lifecycle.enter(State.LEAVING)
            self._failed.wait(self._config.drain_announce_s)
        self._lifecycle.enter(State.DRAINING)
        self._registry.load_no_more()
        drained_at = time.monotonic() + self._config.drain_s
        ends(self._canary.stop, _LAST_ANSWERS_S)
        answered = self._grpc.stop(until(drained_at + _LAST_ANSWERS_S))
        answered.wait(until(drained_at))
        self._tokenizing.close(0.0)  # those who wait are told, while they still can be
        self._engine.stop()
        answered.wait(until(drained_at + 2 * _LAST_ANSWERS_S))
        self._stopped.set()
        ends_at = min(time.monotonic(), drained_at + 2 * _LAST_ANSWERS_S) + _REST_S
        return self._close(answered.is_set(), ends_at)

    def _close(self, is_answered: bool, ends_at: float) -> list[str]:
        """End all threads; those that did not end in time, in words."""
        busy_s = self._engine.busy_s
        is_idle = self._engine.close(until(ends_at))
        left = [] if is_idle else [f"the model, for {busy_s:.1f} s at one piece of work"]
        if not self._registry.close(until(ends_at)):
            left.append("a model that is being loaded")
        if not is_answered:
            left.append("gRPC, or a client's connection")
        elif not ends(self._end_threads, until(ends_at)):
            left.append("calls that were given up")
        if not self._tokenizing.close(until(ends_at)):
            left.append("a tokenizer")
        if self._page is not None and not self._page.close(until(ends_at)):
            left.append("a browser's connection")
        if self._probes is not None and not ends(self._probes.stop, until(ends_at)):
            left.append("probes")
        if not ends(self._telemetry.stop, _RECORDS_S):
            left.append("telemetry")
        if not ends(self._access_log.stop, _RECORDS_S):
            left.append("the access log")
        if not ends(self._audit.stop, _RECORDS_S):
            left.append("the audit log")
        return left

    def _end_threads(self) -> None:
        """Those of calls. After gRPC has stopped, which may still have one to answer."""
        self._canary.close()
        self._lanes.stop()
        self._threads.shutdown(cancel_futures=True)

    def _sweep(self) -> None:
        """Runs past their time give their memory back where nobody calls any more; so do calls that wait for ever."""
        waits = (self._config.stall_s, self._config.hang_s, self._config.request_arrival_s)
        pause_s = min([self._config.sweep_s, *(seconds / 4 for seconds in waits if seconds)])
        while not self._stopped.wait(pause_s):
            try:
                self._runs.expire()
                self._vectors.expire()
                self._quotas.forget()
                memory.give_back()
                self._cancel_overdue()
                self._end_if_hung()
            except Exception as error:  # the next sweep is another chance, and needed
                incident("the sweeper", error)

    def _cancel_overdue(self) -> None:
        """Calls that have waited too long for their client are ended."""
        cancelled = self._lanes.cancel_overdue()
        self._telemetry.stalled(cancelled[Phase.OFFERED] + cancelled[Phase.ANSWERED])
        self._telemetry.late(cancelled[Phase.ARRIVING])
        if self._probes is not None:
            self._probes.cancel_overdue()

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
            self._to_end.set()

    def _tell_answering(self, answering: bool) -> None:
        """The canary's word, which health needs as well."""
        self._is_answering = answering
        self._tell_health(self._lifecycle.state is State.SERVING)

    def _tell_health(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            self._health.set(name, status.SERVING if serving and self._is_answering else status.NOT_SERVING)
