"""The port for browsers under attack: gRPC's port, health and the page itself are answered, and nothing stays."""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import ExitStack, suppress

import pytest

from attack.victim import ATTACKER, HEALTH_WITHIN_S, Victim, standing_by, victim
from support.network.grpc_web import asked, frame, web_call
from support.servers.polling import wait_until
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.methods import SERVICE

pytestmark = pytest.mark.measured

LONG = requests.run(RunInput.of_tokens([list(range(1, 61))] * 16), "").SerializeToString()
CROWD = 200
"""Of the 256 connections that there are: the page stays for others.

They come within 20 ms, which holds up a read or two for 50 to 300 ms on two cores, as 200 calls of gRPC do.
"""


def page_of(attacked: Victim) -> str:
    found = re.search(r"page on (\S+)", attacked.log)
    assert found is not None
    return found[1]


def head(path: str, *headers: str) -> bytes:
    kind = "content-type: application/grpc-web"
    return "\r\n".join([f"POST /{SERVICE}/{path} HTTP/1.1", "host: localhost", kind, *headers, "", ""]).encode()


def sent(page: str, data: bytes, stack: ExitStack) -> None:
    host, _, port = page.partition("://")[2].rpartition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
    with suppress(OSError):
        connection.sendall(data)


def open_files(attacked: Victim) -> int:
    return len(os.listdir(f"/proc/{attacked.process.pid}/fd"))


def slowest_page_s(page: str) -> float:
    slowest = 0.0
    for _ in range(20):
        began = time.monotonic()
        assert asked(page, "/").status == 200
        slowest = max(slowest, time.monotonic() - began)
    return slowest


@pytest.mark.parametrize("attack", ["calls that are dropped", "answers that nobody reads", "bodies without a token"])
def test_a_crowd_at_the_page(attack: str) -> None:
    with victim("--page", "127.0.0.1:0") as attacked:
        page, token = page_of(attacked), f"Bearer {attacked.bearer_tokens[ATTACKER]}"
        ran = web_call(page, "Run", LONG, authorization=token)
        run_id = service_pb2.RunResponse.FromString(ran.messages[0]).run_id
        read = frame(requests.of_method("logits", run_id).SerializeToString())
        call = head("Logits", f"authorization: {token}", f"content-length: {len(read)}") + read
        chunks = head("Logits", "transfer-encoding: chunked") + b"1\r\nx\r\n" * 10_000
        body = head("Logits", "content-length: 1000000000") + b"\0\x3b\x00\x00\x00" + b"x" * 100_000
        before = open_files(attacked)
        with standing_by(attacked, moment=True):
            with ExitStack() as stack:
                for number in range(CROWD):
                    sent(page, (chunks if number % 2 else body) if "token" in attack else call, stack)
                if "dropped" not in attack:
                    assert slowest_page_s(page) < HEALTH_WITHIN_S
            wait_until(lambda: open_files(attacked) <= before + 2)
        assert slowest_page_s(page) < HEALTH_WITHIN_S
        assert "Traceback" not in attacked.log
