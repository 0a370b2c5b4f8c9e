"""Every RPC of a channel, with messages as Python has them: the client's own stub leaves parsing to the client."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.methods import SERVICE
from transparent_llm.wire.rpcs import RPCS


def stub(channel: grpc.Channel) -> Any:
    """An object with one callable for each RPC, by its name."""
    calls = {}
    for rpc in RPCS:
        begin = channel.unary_stream if rpc.streams else channel.unary_unary
        calls[rpc.name] = begin(f"/{SERVICE}/{rpc.name}", rpc.request.SerializeToString, rpc.response.FromString)
    return SimpleNamespace(**calls)


def run_of(service: Any, rows: Sequence[Sequence[int]]) -> str:
    """Run token ids; the id."""
    request = service_pb2.RunRequest()
    for row in rows:
        request.tokens.sequences.add(token_ids=row)
    run_id: str = service.Run(request).run_id
    return run_id


def refusal(call: Any, request: Any, **options: Any) -> Any:
    """The error of a streaming call, which has to fail."""
    with pytest.raises(grpc.RpcError) as raised:
        list(call(request, **options))
    return raised.value
