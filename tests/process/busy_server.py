"""Servers that are at something when a signal comes: a script, whose argument says at what."""

from __future__ import annotations

import sys
import threading

from support.servers.servers import tiny
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.process import daemon


def loads_for_ever(server: Server) -> None:
    """As a hub does that does not answer."""
    daemon.log.info("at it")
    threading.Event().wait()


def computes_for_ever(server: Server) -> None:
    """One piece of work that nobody waits for and that nothing stops."""
    server.serve(tiny(), "tiny")
    server.ready()
    begun = threading.Event()

    def work() -> None:
        begun.set()
        threading.Event().wait()

    server._engine.submit(work)
    begun.wait()
    daemon.log.info("at it")


def leaves_threads(server: Server) -> None:
    """Which the interpreter would wait for at its end."""
    server.serve(tiny(), "tiny")
    server.ready()
    threading.Thread(target=threading.Event().wait, name="of a library").start()
    daemon.log.info("at it")


def never_stops(server: Server) -> None:
    """As if all of Python were held up."""
    server.serve(tiny(), "tiny")
    server.ready()
    server.stop = threading.Event().wait  # type: ignore[method-assign, assignment]
    daemon._LONGEST_END_S = 0.5
    daemon.log.info("at it")


if __name__ == "__main__":
    daemon.serve(ServerConfig(listen="127.0.0.1:0", drain_s=0.2), globals()[sys.argv[1]])
