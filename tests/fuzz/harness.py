"""What reads bytes that came from elsewhere, as functions of bytes: only errors that are meant may come out of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import grpc
import torch
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from fuzz.rpcs import ROWS
from transparent_llm.errors import InvalidRequestError, TransparentLlmError
from transparent_llm.run_input import RunInput
from transparent_llm.wire import fetch, frames, model, requests, runs, slices, status, tensors
from transparent_llm.wire._gen import model_pb2, service_pb2, tensor_pb2
from transparent_llm.wire.assembler import Assembler
from transparent_llm.wire.expected import Answer, Expected
from transparent_llm.wire.methods import METHODS
from transparent_llm.wire.protocol_error import ProtocolError

MOST_BYTES = 2**16
"""Of one tensor that is assembled."""

_SIZES = {"target": 2, "source": 2, "head": 1, "d_model": 3, "batch": 1, "pos": 2}
_EXPECTED = [
    Expected(
        "decomposed_attn",
        ("target", "source", "head", "d_model"),
        _SIZES,
        torch.float32,
        METHODS["decomposed_attn"].parts,
    ),
    Expected("residual_in", ("batch", "pos", "d_model"), _SIZES),
]


def assemble(data: bytes) -> None:
    """Messages of a stream, each behind two bytes of its length; an empty one is an interruption."""
    for answer in (None, Answer(_EXPECTED)):
        assembler = Assembler(MOST_BYTES, most=8, answer=answer)
        with contextlib.suppress(ProtocolError, InvalidRequestError):
            for message in _parts(data):
                assembler.add(message) if message else assembler.resume()
            _require_filled(assembler)


def _require_filled(assembler: Assembler) -> None:
    arrived = assembler.tensors()
    assert sum(tensor.nbytes for _, tensor in arrived) == assembler.total_bytes == assembler.received


def frame(data: bytes) -> None:
    """Read by hand as by generated code."""
    try:
        wanted = tensor_pb2.TensorChunk.FromString(data)
    except DecodeError:
        wanted = None
    try:
        got = frames.parse(data)
        header = tensor_pb2.TensorHeader.FromString(got.header) if got.header is not None else None
    except DecodeError:
        assert wanted is None
        return
    assert wanted is not None
    assert header == (wanted.header if wanted.HasField("header") else None) or header is not None
    assert (got.offset, bytes(got.data)) == (wanted.offset, wanted.data)


def tensor(data: bytes) -> None:
    """In a request."""
    message = tensor_pb2.Tensor.FromString(data)
    decoded = tensors.decode(message)
    assert tensors.encode(decoded).data == message.data


def slice_axes(data: bytes) -> None:
    """Slices of a request."""
    options = tensor_pb2.TensorOptions.FromString(data)
    index = slices.cut((3, 0, 5), ("batch", "pos", "d_model"), slices.from_wire(options.slices))
    assert index is None or all(0 <= part.start <= 5 and 1 <= part.step <= 5 for part in index)


def reads(data: bytes) -> None:
    """Items of a Fetch, and what they say again."""
    request = service_pb2.FetchRequest.FromString(data)
    found = fetch.reads(request)
    assert len(found) == len(request.items)


def run_request(data: bytes) -> None:
    """Sentences or tokens."""
    run_input = runs.from_request(service_pb2.RunRequest.FromString(data))
    assert (run_input.sentences is None) != (run_input.token_ids is None)


def run_response(data: bytes) -> None:
    """To token ids that were sent."""
    message = service_pb2.RunResponse.FromString(data)
    for run_input in (RunInput.of_tokens(ROWS), RunInput.of_sentences(["a", "b"])):
        with contextlib.suppress(ProtocolError):
            assert runs.from_response(message, run_input).tokens.shape[0] == 2


def server_info(data: bytes) -> None:
    """What a server says about itself."""
    info = model.server_from_wire(service_pb2.ServerInfoResponse.FromString(data))
    assert all(each.info.d_model for each in info.models if each.digest)


class _Failed(grpc.RpcError):  # type: ignore[misc]  # a class without types
    def __init__(self, details: bytes) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return self._details.decode("utf-8", "replace")

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        return [(status.DETAILS_KEY, self._details)]


def failure(data: bytes) -> None:
    """Details of a status."""
    error = status.from_rpc_error(_Failed(data), "target")
    assert error.retry_after_s is None or 0 <= error.retry_after_s <= 3600
    assert len(status.to_status(error).SerializeToString()) < 8192 or len(error.metadata) > 8


@cache
def _tokenization() -> Any:
    from transformers import AutoTokenizer

    from transparent_llm_server.demo import DEMO_MODEL
    from transparent_llm_server.models.forward.tokenization import Tokenization

    tokenizer = AutoTokenizer.from_pretrained(str(DEMO_MODEL), trust_remote_code=False)
    return Tokenization(tokenizer, wants_bos=True, n_ctx=64, d_vocab=len(tokenizer))


def tokenize(data: bytes) -> None:
    """A sentence to ids and back, and bytes as ids."""
    tokenization = _tokenization()
    with contextlib.suppress(InvalidRequestError):
        ids = tokenization.encode([data.decode("utf-8", "replace")])
        assert len(tokenization.strings(ids[0])) == len(ids[0])
    with contextlib.suppress(InvalidRequestError):
        rows = [[int.from_bytes(part, "big", signed=True) for part in _parts(data)]]
        tokenization.check(rows)
        tokens, mask = tokenization.pad(rows)
        assert tokens.shape == mask.shape


HARNESSES: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (assemble, frame, tensor, slice_axes, reads, run_request, run_response, server_info, failure, tokenize)
}
MEANT = (TransparentLlmError, ProtocolError, DecodeError)
"""What may come out of them."""


def seeds(name: str) -> Iterator[bytes]:
    """Right inputs to begin with."""
    value = torch.arange(6, dtype=torch.float32).reshape(1, 2, 3)
    header = tensors.header("residual_in", torch.float32, value.shape, ("batch", "pos", "d_model"), "etag")
    chunk = tensor_pb2.TensorChunk(header=header, data=frames.bytes_of(value).tobytes()).SerializeToString()
    details = status_pb2.Status(message="words")
    details.details.add().Pack(error_details_pb2.ErrorInfo(reason="BUSY", domain=status.DOMAIN))
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.seconds = 1
    details.details.add().Pack(retry)
    options = tensor_pb2.TensorOptions(slices=[{"axis": "pos", "start": 1, "stop": -1, "step": 2}])
    described = model_pb2.ModelDescription(info={"n_layers": 1, "d_model": 3, "d_vocab": 5}, digest="0" * 64)
    items: Any = [{"residual_in": {"layer": 0, "options": options}}]
    ids = [1, 2, 3, 4, 5, 6, 0, 0]
    answer: Any = {
        "run_id": "r",
        "batch_size": 2,
        "n_pos": 4,
        "model_digest": "0" * 64,
        "token_ids": ids,
        "token_strings": "a" * 8,
    }
    found: dict[str, bytes] = {
        "assemble": len(chunk).to_bytes(2, "big") + chunk,
        "frame": chunk,
        "tensor": tensors.encode(value).SerializeToString(),
        "slice_axes": options.SerializeToString(),
        "reads": service_pb2.FetchRequest(run_id="r", items=items).SerializeToString(),
        "run_request": requests.run(RunInput.of_tokens(ROWS), "m").SerializeToString(),
        "run_response": service_pb2.RunResponse(**answer).SerializeToString(),
        "server_info": service_pb2.ServerInfoResponse(api_version="1.0", models=[described]).SerializeToString(),
        "failure": details.SerializeToString(),
        "tokenize": b"\x00\x01\x05\x00\x02\x01\x00 What say you?",
    }
    yield found[name]


def _parts(data: bytes) -> Iterator[bytes]:
    while data:
        size = int.from_bytes(data[:2], "big")
        yield data[2 : 2 + size]
        data = data[2 + size :]
