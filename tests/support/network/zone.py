"""A name server on loopback: how proxies and clients find replicas in a cluster."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

TTL_S = 1


class Zone:
    """Answers every name with the addresses that are set now."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        zone = self

        class Answer(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                query, socket = self.request
                socket.sendto(zone.answer(query), self.client_address)

        self._server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Answer)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, query: bytes) -> bytes:
        asked = dns.message.from_wire(query)
        response = dns.message.make_response(asked)
        response.flags |= dns.flags.AA | dns.flags.RA
        for question in asked.question:
            if question.rdtype == dns.rdatatype.A:  # one set each: dnspython shuffles a set, with everyone's `random`
                response.answer += [
                    dns.rrset.from_text(question.name, TTL_S, "IN", "A", address) for address in self.addresses
                ]
        return response.to_wire()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def zone() -> Iterator[Zone]:
    made = Zone()
    try:
        yield made
    finally:
        made.close()
