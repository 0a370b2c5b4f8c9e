"""Tokens for and against, as a person reads them."""

from __future__ import annotations

import pytest
import torch

from transparent_llm.analysis.top_tokens import top_tokens, top_tokens_of
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server import TransformerLensTransparentLlm


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
