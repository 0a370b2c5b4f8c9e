"""A server process to attack, and what an attack does to others: health, another owner's reads, memory."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from transparent_llm import RemoteTransparentLlm

ATTACKER, OTHER = "attacker", "other"
HEALTH_WITHIN_S = 1.0
"""How soon health must be told under every attack."""

SLOWER = 5.0
"""How much longer than on an idle server another owner's small reads may take under attack."""

SHORTEST_P99_S = 0.02
"""What a p99 of an idle server is taken for at least: below it the machine's own jitter would decide."""

MEMORY_RETURNS_TO = 1.10
"""Of what was resident before the attack, afterwards."""

_ENOUGH_FOR_A_P99 = 400
"""Times of which four are beyond their p99. Of fewer the p95 is held, and each to as much as health."""

_IDLE_READS, _PAUSE_S = 60, 0.01
_PROBES = re.compile(r"answering probes on (\S+)")


class MissedBoundError(AssertionError):
    """A promise about time or memory was not kept."""


class Victim:
    """A server of the demo model on loopback for two owners, `ATTACKER` and `OTHER`, with a port for probes."""

    def __init__(self, process: subprocess.Popen[str], log: Path, bearer_tokens: dict[str, str]) -> None:
        self.process, self._log, self.bearer_tokens = process, log, bearer_tokens
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: "), self.log
        self.address = line.removeprefix("ready: ").strip()
        found = _PROBES.search(self.log)
        assert found is not None, self.log
        self.probe_address = found[1]

    @property
    def log(self) -> str:
        """What it has written to standard error so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def metadata(self, owner: str = ATTACKER) -> list[tuple[str, str]]:
        """For calls made by hand."""
        return [("authorization", f"Bearer {self.bearer_tokens[owner]}")]

    def client(self, owner: str = OTHER, **settings: float) -> RemoteTransparentLlm:
        """A client of an owner with a connection of its own."""
        return RemoteTransparentLlm(self.address, token=self.bearer_tokens[owner], **{"timeout_s": 60.0, **settings})  # type: ignore[arg-type]

    def is_alive(self) -> bool:
        return self.process.poll() is None


@contextmanager
def victim(
    *arguments: str, before: Sequence[str] = (), script: Path | None = None, owners: bool = True
) -> Iterator[Victim]:
    """`transparent-llm serve ARGUMENTS`, or a script that does the same, behind a command like `prlimit --nproc=48`.

    Without `owners` it wants no tokens, and everybody is one owner.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server may run as another user
        bearer_tokens = BearerTokenFile(folder / "tokens.txt", ATTACKER, OTHER)
        program = ["-m", "transparent_llm"] if script is None else [str(script)]
        serve = [sys.executable, *program, "serve", "--device", "cpu", "--listen", "127.0.0.1:0"]
        access = ["--tokens", str(bearer_tokens.path)] if owners else []
        flags = ["--probe-listen", "127.0.0.1:0", *access, *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_WAIT_POLICY": "passive"}
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*before, *serve, *flags], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        try:
            yield Victim(process, folder / "log", bearer_tokens.bearer_tokens)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@dataclass
class Bystander:
    """Another owner who reads a little again and again, and whoever asks for health: what an attack does to them."""

    idle_p99_s: float
    reads_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Reads and health checks that failed, in words."""

    @property
    def slower(self) -> float:
        """How many times the p99 on the idle server the reads took: their p99, or p95 where they are few."""
        percent = 99 if len(self.reads_s) >= _ENOUGH_FOR_A_P99 else 95
        return percentile(self.reads_s, percent) / max(self.idle_p99_s, SHORTEST_P99_S)

    def require_quick(self, what: str) -> None:
        """Raises MissedBoundError where the reads took too long."""
        if self.slower >= SLOWER:
            raise MissedBoundError(f"{what} took {self.slower:.1f} times as long as on the idle server: {self}")
        if len(self.reads_s) < _ENOUGH_FOR_A_P99:
            self.require_each_quick(what)

    def require_each_quick(self, what: str) -> None:
        """Raises MissedBoundError where one of the reads took longer than health may."""
        if max(self.reads_s) >= HEALTH_WITHIN_S:
            raise MissedBoundError(f"one of the {what} took {max(self.reads_s):.2f} s: {self}")

    @property
    def slowest_health_s(self) -> float:
        return max(self.health_s, default=0.0)

    def __str__(self) -> str:
        times = (f"p{percent} {percentile(self.reads_s, percent) * 1000:.1f}" for percent in (95, 99, 100))
        return (
            f"{len(self.reads_s)} times, ms: {', '.join(times)} (idle p99 {self.idle_p99_s * 1000:.1f}); "
            f"health {len(self.health_s)} times, slowest {self.slowest_health_s * 1000:.0f} ms; {len(self.lost)} lost"
        )


@contextmanager
def standing_by(attacked: Victim, *, moment: bool = False) -> Iterator[Bystander]:
    """Within this block a bystander reads and asks for health; after it, it is held to what others are promised.

    An attack that is over in a `moment` sees too few reads for any percentile: then each must end as soon as health is
    told. How long reads take on the idle server is measured before and after it, and the slower counts: what else goes
    on on the machine is no effect of the attack.
    """
    before = attacked.resident_bytes
    with attacked.client(OTHER, cache_bytes=0) as llm:
        llm.run(["What say you?"])
        bystander = Bystander(_idle_p99_s(llm))
        over = threading.Event()
        threads = [
            threading.Thread(target=_keep_reading, args=(llm, bystander, over)),
            *(
                threading.Thread(target=_keep_asking, args=(address, bystander, over))
                for address in (attacked.address, attacked.probe_address)
            ),
        ]
        for thread in threads:
            thread.start()
        try:
            yield bystander
        finally:
            over.set()
            for thread in threads:
                thread.join()
        bystander.idle_p99_s = max(bystander.idle_p99_s, _idle_p99_s(llm))
    print(f"\n{bystander}; resident {before / 2**20:.0f} MiB before, {attacked.resident_bytes / 2**20:.0f} after")
    assert attacked.is_alive(), attacked.log
    assert not bystander.lost, bystander.lost
    (bystander.require_each_quick if moment else bystander.require_quick)("reads")
    if bystander.slowest_health_s >= HEALTH_WITHIN_S:
        raise MissedBoundError(f"health was told after {bystander.slowest_health_s:.2f} s")
    _await_memory(attacked, before)


def _await_memory(attacked: Victim, before: int) -> None:
    try:
        wait_until(lambda: attacked.resident_bytes < before * MEMORY_RETURNS_TO)
    except AssertionError:
        now = attacked.resident_bytes
        raise MissedBoundError(f"{now / 2**20:.0f} MiB are resident, {before / 2**20:.0f} were before") from None


def _idle_p99_s(llm: RemoteTransparentLlm) -> float:
    """Of reads with pauses like those of the bystander; the first few find caches cold."""
    pause, seconds = threading.Event(), []
    for _ in range(_IDLE_READS):
        pause.wait(_PAUSE_S)
        seconds.append(_read(llm))
    return percentile(seconds[_IDLE_READS // 10 :], 99)


def _keep_reading(llm: RemoteTransparentLlm, bystander: Bystander, over: threading.Event) -> None:
    while not over.wait(_PAUSE_S):
        try:
            bystander.reads_s.append(_read(llm))
        except Exception as error:
            bystander.lost.append(f"read: {error}")
            return


def _keep_asking(address: str, bystander: Bystander, over: threading.Event) -> None:
    while not over.wait(0.05):
        began = time.monotonic()
        try:
            status = told_health(address, 5 * HEALTH_WITHIN_S)
        except grpc.RpcError as error:
            bystander.lost.append(f"health at {address}: {error.code()} {error.details()}")
            return
        bystander.health_s.append(time.monotonic() - began)
        if status != health_pb2.HealthCheckResponse.SERVING:
            bystander.lost.append(f"health at {address}: {status}")


def told_health(address: str, timeout_s: float) -> int:
    """The status that is told to one who connects anew."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s).status)


def _read(llm: RemoteTransparentLlm) -> float:
    began = time.monotonic()
    llm.residual_out(1)
    return time.monotonic() - began


def percentile(seconds: Sequence[float], percent: int) -> float:
    """Never beyond the longest, however few they are."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
