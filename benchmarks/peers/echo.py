"""Bare gRPC: a server stream of one message of some bytes, no schema, no interceptors. Run with the number of bytes."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

_SERVICE, _METHOD = "benchmark.Echo", "Read"
_THREADS = 64
PATH = f"/{_SERVICE}/{_METHOD}"


def serve(n_bytes: int) -> None:
    payload = b"\0" * n_bytes
    handler = grpc.unary_stream_rpc_method_handler(lambda _request, _context: iter([payload]))
    server = grpc.server(ThreadPoolExecutor(_THREADS))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
