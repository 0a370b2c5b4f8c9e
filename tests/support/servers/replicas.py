"""Replicas of a server: processes with the same port on addresses of their own, as in a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.network.ports import free_port


class Replica:
    """A process that can be started, killed, stopped in the middle of everything, and started again."""

    def __init__(self, host: str, ports: tuple[int, int], arguments: Sequence[str], folder: Path) -> None:
        self.host, self.address, self.probes = host, f"{host}:{ports[0]}", f"{host}:{ports[1]}"
        self._arguments = [*arguments]
        self.log = folder / f"{host}.log"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin; `await_ready` waits until it serves."""
        command = [sys.executable, "-m", "transparent_llm", "serve", "--device", "cpu", "--listen", self.address]
        command += ["--probe-listen", self.probes]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_WAIT_POLICY": "passive"}
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )

    def await_ready(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("ready: "), self.log.read_text()[-2000:]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """As an orchestrator does; the exit code, once it has drained."""
        return self._end(signal.SIGTERM)

    def hang(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)  # every thread of it

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def is_serving(self) -> bool:
        with grpc.insecure_channel(self.address) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code


@contextmanager
def replicas(count: int, folder: Path, *arguments: str) -> Iterator[list[Replica]]:
    """So many of them, that serve."""
    hosts = [f"127.0.0.{number + 2}" for number in range(count)]
    ports = free_port(hosts), free_port(hosts)
    made = [Replica(host, ports, arguments, folder) for host in hosts]
    try:
        for replica in made:
            replica.start()
        for replica in made:
            replica.await_ready()
        yield made
    finally:
        for replica in made:
            replica.kill()
