"""The answer to TopTokens: scores of the whole vocabulary stay here, the best and the worst are told."""

from __future__ import annotations

import torch

from transparent_llm.analysis.counts import checked_count
from transparent_llm.analysis.vector_tokens import VectorTokens, vector_tokens
from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire import tensors
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.parameters import MOST_NUMBERS
from transparent_llm_server.models.serving import ServedModel
from transparent_llm_server.rpc.answers import Answers
from transparent_llm_server.rpc.caller import Caller


def top_tokens(
    model: ServedModel, request: service_pb2.TopTokensRequest, answers: Answers, caller: Caller
) -> service_pb2.TopTokensResponse:
    """Of a request.

    Raises:
        InvalidRequestError: what is no vector of the residual stream, or more tokens than there are or one answer has.
    """
    for name, count in (("k", request.k), ("bottom_k", request.bottom_k)):
        checked_count(name, count, model.description.info.d_vocab, "tokens in the vocabulary", least=0)
        checked_count(name, count, MOST_NUMBERS, "tokens in one answer", least=0)
    vector = tensors.decode(request.t)
    if vector.ndim != 1:
        raise InvalidRequestError(
            f"TopTokens takes a vector [d_model], got shape {list(vector.shape)}", reason="INVALID_SHAPE"
        )

    def told(scores: torch.Tensor) -> VectorTokens:
        return vector_tokens(scores, request.k, request.bottom_k)

    found = answers.made_of(model.read, "unembed", (vector, request.normalize), told, caller)
    return service_pb2.TopTokensResponse(**{name: part.tolist() for name, part in found._asdict().items()})
