"""For tests of code that is written against `TransparentLlm`: a real server in this process.

with serve_in_process(my_llm) as llm:
    check(llm)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transparent_llm.client.config import NO_CREDENTIALS
from transparent_llm.client.remote import RemoteTransparentLlm
from transparent_llm.contract import TransparentLlm

if TYPE_CHECKING:
    from transparent_llm_server.app import Server


class InProcessTransparentLlm(RemoteTransparentLlm):
    """A client that owns its server: closing it stops both."""

    def __init__(self, server: Server, **options: Any) -> None:
        super().__init__(server.address, **{**NO_CREDENTIALS, **options})
        self.server = server
        """It runs until this object is closed."""

    def close(self) -> None:
        """Close the connection and stop the server."""
        super().close()
        self.server.stop()


def serve_in_process(llm: TransparentLlm, **options: Any) -> InProcessTransparentLlm:
    """Serve a model of this process on a free loopback port, and connect to it over real gRPC.

    Needs the extra `[server]`.

    Args:
        llm: Any implementation of the contract whose `copy()` has a current run of its own.
        options: See `RemoteTransparentLlm`.
    """
    from transparent_llm_server.app import Server
    from transparent_llm_server.config.server import ServerConfig

    server = Server(ServerConfig(listen="127.0.0.1:0", drain_s=1.0))
    server.start()
    server.serve(llm, alias=llm.model_info().name)
    server.ready()
    return InProcessTransparentLlm(server, **options)
