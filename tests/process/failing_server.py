"""A server whose device is lost at the first run; a script, so that its exit code can be seen."""

from __future__ import annotations

import sys

import torch

from support.servers.servers import tiny
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.models.serving_contract import ServedTransparentLlm
from transparent_llm_server.process.daemon import serve


class LosesItsDevice(ServedTransparentLlm):
    """A model that runs once upon a device that then breaks."""

    def execute(self, prepared):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG002
        """Fail as CUDA does."""
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def load(server: Server) -> None:
    """One model that works until it is run."""
    server._registry.add(LosesItsDevice("tiny", tiny()))
    server.ready()


if __name__ == "__main__":
    sys.exit(serve(ServerConfig(listen="127.0.0.1:0"), load))
