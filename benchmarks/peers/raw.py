"""The service spoken to without the client: tensors come dense, and nothing is kept of them."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.methods import SERVICE


class RawStream:
    """Streams of one run at a time."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._run = channel.unary_unary(
            f"/{SERVICE}/Run", service_pb2.RunRequest.SerializeToString, service_pb2.RunResponse.FromString
        )
        self._decomposed_attn = channel.unary_stream(
            f"/{SERVICE}/DecomposedAttn",
            service_pb2.DecomposedAttnRequest.SerializeToString,
            tensor_pb2.TensorChunk.FromString,
        )
        self._run_id = ""

    def run(self, token_ids: list[list[int]]) -> None:
        """What is streamed from now on."""
        rows = [service_pb2.TokenSequence(token_ids=row) for row in token_ids]
        request = service_pb2.RunRequest(tokens=service_pb2.TokenBatch(sequences=rows))
        self._run_id = self._run(request).run_id

    def decomposed_attn(self, batch_i: int, layer: int) -> Iterator[int]:
        """Bytes of each chunk; whoever stops asking ends the call."""
        request = service_pb2.DecomposedAttnRequest(run_id=self._run_id, batch_i=batch_i, layer=layer)
        call = self._decomposed_attn(request)
        try:
            for chunk in call:
                yield len(chunk.data)
        finally:
            call.cancel()
