"""Tokens for and against, as a person reads them."""

from __future__ import annotations

import grpc
import pytest
import torch

from support.models.families import D_MODEL
from support.servers.engines import SOON
from support.servers.servers import running
from support.servers.stub import stub
from transparent_llm.analysis.top_tokens import top_tokens, top_tokens_of
from transparent_llm.errors import InvalidRequestError
from transparent_llm.testing import serve_in_process
from transparent_llm.wire import requests
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.rpc import server_info


def test_without_arguments_it_is_the_output(gpt2: TransformerLensTransparentLlm) -> None:
    found = top_tokens(gpt2, k=5)
    logits = gpt2.logits()[0, int(gpt2.last()[0])].double()
    assert found.ids.tolist() == logits.topk(5).indices.tolist()
    assert found.probs is not None
    assert (found.probs.double() - logits.softmax(dim=0)[found.ids]).abs().max() < 1e-5
    assert list(found.strings) == gpt2.tokens_to_strings(found.ids)


def test_promoted_and_suppressed(gpt2: TransformerLensTransparentLlm) -> None:
    found = top_tokens(gpt2, 1, 4, minus=("in", 1), k=3, bottom_k=2, normalize="none")
    added = gpt2.residual_out(1)[0, 4] - gpt2.residual_in(1)[0, 4]
    order = gpt2.unembed(added, normalize=False).argsort(descending=True).tolist()
    assert found.ids.tolist() == [*order[:3], *order[-2:]]
    assert found.probs is None
    assert found.n_top == 3


def test_gains_are_ranks_that_were_climbed(gpt2: TransformerLensTransparentLlm) -> None:
    found = top_tokens(gpt2, 1, 4, compared_with=("in", 1), k=4, bottom_k=1)
    before = gpt2.unembed(gpt2.residual_in(1)[0, 4], normalize=True).argsort(descending=True).tolist()
    after = gpt2.unembed(gpt2.residual_out(1)[0, 4], normalize=True).argsort(descending=True).tolist()
    wanted = [before.index(token) - after.index(token) for token in found.ids.tolist()]
    assert found.gains is not None
    assert found.gains.tolist() == wanted
    assert f"{wanted[0]:+d}" in str(found)


def test_a_vector(gpt2: TransformerLensTransparentLlm) -> None:
    vector = gpt2.neuron_output(0, 3)
    found = top_tokens_of(gpt2, vector, k=2, bottom_k=1)
    order = gpt2.unembed(vector, normalize=False).argsort(descending=True).tolist()
    assert found.ids.tolist() == [*order[:2], order[-1]]
    with pytest.raises(InvalidRequestError, match="a vector"):
        top_tokens_of(gpt2, torch.zeros(2, 2))
    with pytest.raises(InvalidRequestError, match="got 501"):
        top_tokens_of(gpt2, vector, k=501)


# Of a server


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("version", ["this one", "an older one"])
def test_a_server_finds_the_same_without_a_run(
    gpt2: TransformerLensTransparentLlm, monkeypatch: pytest.MonkeyPatch, version: str, normalize: bool
) -> None:
    if version != "this one":
        monkeypatch.setattr(
            server_info, "FEATURES", tuple(each for each in server_info.FEATURES if each != "top_tokens")
        )
    vector = gpt2.residual_out(1)[0, 4] - gpt2.residual_in(0)[0, 4]
    wanted = top_tokens_of(gpt2, vector, k=7, bottom_k=3, normalize=normalize)
    with serve_in_process(gpt2.copy()) as remote:
        found = remote.top_tokens_of(vector, k=7, bottom_k=3, normalize=normalize)
        told = remote.vector_tokens(vector, normalize=normalize, k=7, bottom_k=3)
        everything = remote.top_tokens_of(vector, k=500, bottom_k=0)
        assert remote.vector_tokens(vector, normalize=normalize, k=4097, bottom_k=0) is None
    assert found.strings == wanted.strings
    assert torch.equal(found.ids, wanted.ids)
    assert torch.equal(found.logits, wanted.logits)
    assert (found.probs is None) == (wanted.probs is None)
    assert found.probs is None or torch.equal(found.probs, wanted.probs)  # type: ignore[arg-type]
    assert everything.ids.tolist() == top_tokens_of(gpt2, vector, k=500).ids.tolist()
    assert (told is not None) == (version == "this one")


@pytest.mark.parametrize(
    ("t", "counts", "words"),
    [
        (torch.ones(D_MODEL), {"k": 501}, "k must be 0 to 500, the number of tokens in the vocabulary, got 501"),
        (torch.ones(D_MODEL), {"bottom_k": 2**32 - 1}, "bottom_k must be 0 to 500"),
        (torch.ones(2, D_MODEL), {"k": 1}, "takes a vector"),
        (torch.ones(D_MODEL + 1), {"k": 1}, "takes a vector of d_model = 64 elements"),
        (torch.ones(D_MODEL, dtype=torch.int64), {"k": 1}, "takes a floating vector"),
    ],
)
def test_what_no_client_asks_for_is_refused(t: torch.Tensor, counts: dict[str, int], words: str) -> None:
    request = requests.top_tokens("", "", t, normalize=False, **{"k": 0, "bottom_k": 0, **counts})
    with running() as server, grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as told:
            stub(channel).TopTokens(request, timeout=SOON)
    assert told.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in told.value.details()
