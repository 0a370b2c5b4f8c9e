"""How likely each token was, against plain Hugging Face in float64."""

from __future__ import annotations

import torch

from support.models.batch import LENGTHS, ROWS
from support.models.reference import HuggingFaceReference
from transparent_llm.analysis.token_logprobs import token_logprobs
from transparent_llm_server import TransformerLensTransparentLlm


def test_every_family(llm: TransformerLensTransparentLlm, reference: HuggingFaceReference) -> None:
    for row, tokens in enumerate(ROWS):
        found, n = token_logprobs(llm, row), LENGTHS[row]
        logits = reference.logits()[row, : n - 1].double()
        following = torch.tensor(tokens[1:])
        wanted = logits.log_softmax(dim=1)[range(n - 1), following]
        assert (found.logprobs[: n - 1].double() - wanted).abs().max() <= 1e-4
        order = logits.argsort(dim=1, descending=True)
        places = [order[pos].tolist().index(token) for pos, token in enumerate(tokens[1:])]
        gaps = [logits[p].sort().values.diff().min().item() for p in range(n - 1)]
        for pos, (got, place) in enumerate(zip(found.ranks[: n - 1].tolist(), places, strict=True)):
            assert got == place or gaps[pos] < 1e-4
        assert found.logprobs[n - 1 :].isnan().all()
        assert (found.ranks[n - 1 :] == -1).all()


def test_one_token_has_nothing_that_follows(gpt2: TransformerLensTransparentLlm) -> None:
    llm = gpt2.copy()
    llm.run_tokens([[5]])
    found = llm.token_logprobs()
    assert found.logprobs.isnan().tolist() == [True]
    assert found.ranks.tolist() == [-1]
