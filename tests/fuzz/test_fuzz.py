"""Every RPC with requests that no client would send: no fault of the server, no hang, and right values afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from fuzz.requests import Requests, damaged
from fuzz.rpcs import ALLOWED, NEVER_ANSWERED, ROWS, RPCS, SERVICES, right_requests, send
from support.examples import the_same_every_time
from support.models.tensors import assert_same_bits
from support.servers.servers import running, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2
from transparent_llm_server.app import Server

DEADLINE_S = 120.0


@dataclass
class Target:
    """A server with a run in it, and what it has answered."""

    server: Server
    channel: grpc.Channel
    run_id: str
    answers: Counter[tuple[str, StatusCode]]

    def call(self, name: str, data: bytes) -> StatusCode:
        """Send bytes as a request and take the whole answer."""
        error = send(self.channel, name, data, DEADLINE_S)
        code = StatusCode.OK if error is None else error.code()
        if code not in ALLOWED:
            print(f"{name} {data!r:.200}: {error}")
        self.answers[RPCS[name].name, code] += 1
        return code


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    limits = {"run_store_bytes": 2**24, "max_tokens_per_run": 4096, "datasets": (f"words={__file__}",)}
    # so many refused calls in a row outrun the limit of a connection, to which gRPC answers UNAVAILABLE
    with running(**limits, max_streams_per_connection=100_000) as server:
        with grpc.insecure_channel(server.address) as channel:
            yield Target(server, channel, run_of(channel), Counter())


def run_of(channel: grpc.Channel) -> str:
    run = channel.unary_unary(f"/{SERVICES[0].full_name}/Run", response_deserializer=service_pb2.RunResponse.FromString)
    return str(run(requests.run(RunInput.of_tokens(ROWS), "").SerializeToString(), timeout=DEADLINE_S).run_id)


@pytest.mark.parametrize("name", RPCS)
def test_every_request_is_answered_or_refused(name: str, target: Target, is_long: bool) -> None:
    examples = 160 if is_long else 10
    requests = Requests(target.run_id, "tiny")
    right = [one.SerializeToString() for one in right_requests(name, target.run_id, tiny().model_info().d_model)]

    @the_same_every_time(examples)
    @given(st.data())
    def send_any(data: st.DataObject) -> None:
        run_of(target.channel)  # others may have released it, or filled the store
        data_ = data.draw(requests.messages(RPCS[name].input_type)).SerializeToString()
        for sent in (data_, data.draw(damaged(data_)), *(data.draw(damaged(one)) for one in right)):
            assert target.call(name, sent) in ALLOWED, sent

    send_any()
    run_of(target.channel)
    for one in right:
        assert target.call(name, one) is (StatusCode.UNIMPLEMENTED if name in NEVER_ANSWERED else StatusCode.OK)
    refused = {code for rpc, code in target.answers if rpc == RPCS[name].name} - {StatusCode.OK}
    assert refused


def test_afterwards_it_is_alive_and_right(target: Target, is_long: bool) -> None:
    for (rpc, code), count in sorted(target.answers.items(), key=str):
        print(f"{rpc:<24} {code.name:<20} {count}")
    assert {rpc for rpc, _ in target.answers} == {rpc.name for rpc in RPCS.values()}
    assert target.answers.total() >= (10_000 if is_long else 600)
    print(f"{target.answers.total()} calls")
    local = tiny().copy()
    local.run_tokens(ROWS)
    with RemoteTransparentLlm(target.server.address) as llm:
        llm.run_tokens(ROWS)
        assert llm.is_serving()
        assert_same_bits(llm.logits(), local.logits())
        assert_same_bits(llm.decomposed_attn(0, 1), local.decomposed_attn(0, 1))
