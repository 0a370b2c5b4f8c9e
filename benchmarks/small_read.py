"""A small read (one attention matrix) beside a bare gRPC echo of the same size, both from a process of their own.

The two are called in turn, so that a machine whose speed drifts slows both. The last line is one JSON object.

    .venv/bin/python benchmarks/small_read.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import torch

from transparent_llm import connect
from transparent_llm.demo import server_process

TARGET_RATIO = 1.3
ECHO = "/benchmark.Echo/Read"


def serve_echo(n_bytes: int) -> None:
    """The bare peer: a server stream of one message of `n_bytes`, no schema, no interceptors."""
    payload = b"\0" * n_bytes
    handler = grpc.unary_stream_rpc_method_handler(lambda _request, _context: iter([payload]))
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmark.Echo", {"Read": handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure(pairs: int, reads: int) -> dict[str, object]:
    with server_process() as address, connect(address) as llm:
        llm.run_tokens([list(range(1, 65))])
        n_bytes = llm.attention_matrix(0, 1, 0).nbytes
        command = [sys.executable, __file__, "--serve-echo", str(n_bytes)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
            assert peer.stdout is not None
            with grpc.insecure_channel(f"127.0.0.1:{peer.stdout.readline().strip()}") as channel:
                echo = channel.unary_stream(ECHO)
                rounds = [
                    (
                        statistics.median(seconds(lambda: llm.attention_matrix(0, 1, 0)) for _ in range(reads)),
                        statistics.median(seconds(lambda: list(echo(b""))) for _ in range(reads)),
                    )
                    for _ in range(pairs + 1)
                ][1:]  # the first warms up
            peer.terminate()
    ratio = statistics.median(ours / bare for ours, bare in rounds)
    return {
        "name": "small_read",
        "ratio": round(ratio, 3),
        "better": "lower",
        "target": TARGET_RATIO,
        "met": ratio <= TARGET_RATIO,
        "bytes": n_bytes,
        "pairs": pairs,
        "reads_per_pair": reads,
        "read_ms": round(1e3 * statistics.median(ours for ours, _ in rounds), 3),
        "echo_ms": round(1e3 * statistics.median(bare for _, bare in rounds), 3),
        "machine": f"{platform.system()} {platform.machine()}, torch {torch.__version__}, grpcio {grpc.__version__}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the short form")
    parser.add_argument("--serve-echo", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_echo is not None:
        serve_echo(arguments.serve_echo)
        return
    print(json.dumps(measure(pairs=7, reads=50) if arguments.quick else measure(pairs=15, reads=200)))


if __name__ == "__main__":
    main()
