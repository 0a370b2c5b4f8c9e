"""Many callers who make the same call and give it up: in a process of their own, so that only the server is between
them and the bystander.

    python -m attack.crowd ADDRESS TOKEN PATH THREADS ROUNDS TIMEOUT_S < request
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter

import grpc

from attack.victim import ATTACKER, Victim


def crowd(attacked: Victim, rpc: str, request: bytes, threads: int, rounds: int, timeout_s: float) -> Counter[str]:
    """Let them come; how their calls ended."""
    path = f"/transparent_llm.v1.TransparentLlmService/{rpc}"
    arguments = [attacked.address, attacked.bearer_tokens[ATTACKER], path, str(threads), str(rounds), str(timeout_s)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "attack.crowd", *arguments]
    done = subprocess.run(command, input=request, stdout=subprocess.PIPE, env=environment, check=True, timeout=120)
    return Counter(done.stdout.decode().split())


def main(address: str, token: str, path: str, threads: str, rounds: str, timeout_s: str) -> None:
    request, codes = sys.stdin.buffer.read(), list[str]()

    def call() -> None:
        for _ in range(int(rounds)):
            try:
                answer = channel.unary_stream(path)(
                    request, timeout=float(timeout_s), metadata=[("authorization", f"Bearer {token}")]
                )
                for _ in answer:
                    pass
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)

    with grpc.insecure_channel(address) as channel:
        callers = [threading.Thread(target=call) for _ in range(int(threads))]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    print("\n".join(codes))


if __name__ == "__main__":
    main(*sys.argv[1:])
