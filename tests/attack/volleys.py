"""Calls made all at once, again and again, by a process of their own: those who measure must not wait for attackers."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

SERVICE = "transparent_llm.v1.TransparentLlmService"  # nothing of ours is imported here: torch alone takes seconds
PAUSE_S = 0.25
"""Between volleys: a client that sends as fast as it can is another attack."""


@dataclass(frozen=True)
class Call:
    """A call as bytes, so that making it again costs next to nothing."""

    rpc: str
    request: bytes
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Volleys:
    """Who calls what, in volleys for so many seconds; 0: in one."""

    address: str
    metadata: list[tuple[str, str]]
    calls: list[Call]
    seconds: float = 0.0

    def ends(self) -> list[str]:
        """How the calls end: the names of their codes."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "attack.volleys"]
        ran = subprocess.run(command, input=pickle.dumps(self), stdout=subprocess.PIPE, env=environment, check=True)
        return ran.stdout.decode().split()

    def make(self) -> list[str]:
        """Make them in this process."""
        ends, over_at = [], time.monotonic() + self.seconds
        with (
            grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel,
            ThreadPoolExecutor(len(self.calls)) as pool,
        ):
            while not ends or time.monotonic() < over_at:
                ends += pool.map(lambda call: self._end(channel, call), self.calls)
                threading.Event().wait(PAUSE_S)
        return ends

    def _end(self, channel: grpc.Channel, call: Call) -> str:
        make = channel.unary_unary(f"/{SERVICE}/{call.rpc}")
        try:
            make(call.request, timeout=call.timeout_s, metadata=self.metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


if __name__ == "__main__":
    from attack import volleys as known  # where what was pickled is found

    given: known.Volleys = pickle.load(sys.stdin.buffer)
    print(*given.make())
