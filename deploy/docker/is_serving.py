"""Exit 0 if a server says that it serves, 1 with the reason if not: a container's health command.

    is-serving [HOST:PORT]

It asks the standard health service, in the clear, as the server's probe port has it. It stands outside the packages,
which import torch: this takes a tenth of a second, `transparent-llm health` more than one, and it is asked all day.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

DEFAULT_TARGET = "127.0.0.1:50052"
TIMEOUT_S = 3.0
DIRECTLY = [("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", "")]
"""Whatever proxy the environment names for other things: a container asks itself."""


def main(argv: list[str]) -> int:
    """Ask the server at the only argument, or at the probe port of this host."""
    target = argv[0] if argv else DEFAULT_TARGET
    with grpc.insecure_channel(target, DIRECTLY) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            print(f"is-serving: no answer from {target}: {error.details()}", file=sys.stderr)
            return 1
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if status != "SERVING":
        print(f"is-serving: {target} says {status}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
