"""The embedded model is what its card says: small, trained, with a real induction head."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import torch

from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.demo import server_process
from transparent_llm_server.demo import DEMO_MODEL

MEGABYTES = 10**6
PERIODS = (11, 17, 23, 29, 37)
"""Lengths of the repeated sequence: a head that looks back by a fixed distance fits one of them at most."""


@pytest.fixture(scope="module")
def llm() -> Iterator[RemoteTransparentLlm]:
    with server_process() as address, connect(address) as remote:
        yield remote


def repeated_sequences(llm: RemoteTransparentLlm, period: int, rows: int = 8) -> list[list[int]]:
    generator = torch.Generator().manual_seed(period)
    llm.run(["a"])
    bos = int(llm.tokens()[0, 0])
    unit = torch.randint(1, llm.model_info().d_vocab, (rows, period), generator=generator).tolist()
    return [[bos, *row, *row] for row in unit]


def induction_score(llm: RemoteTransparentLlm, layer: int, head: int, period: int, rows: int) -> float:
    """Attention from the second copy to the token that followed the first, averaged over rows and positions."""
    queries = torch.arange(1 + period, 2 * period)
    matrices = (llm.attention_matrix(row, layer, head) for row in range(rows))
    return torch.stack([matrix[queries, queries - period + 1].mean() for matrix in matrices]).mean().item()


def test_it_has_an_induction_head_seen_through_the_remote_client(llm: RemoteTransparentLlm) -> None:
    info, rows = llm.model_info(), 4
    scores = torch.zeros(info.n_layers, info.n_heads)
    for period in PERIODS:
        llm.run_tokens(repeated_sequences(llm, period, rows))
        for layer in range(info.n_layers):
            for head in range(info.n_heads):
                scores[layer, head] += induction_score(llm, layer, head, period, rows) / len(PERIODS)
    best = scores.max().item()
    assert best >= 0.5, scores
    assert scores.argmax().item() >= info.n_heads  # never in the first layer: it takes two to do induction


def test_it_predicts_a_repeated_sequence_much_better_than_chance(llm: RemoteTransparentLlm) -> None:
    period = 23
    rows = repeated_sequences(llm, period)
    llm.run_tokens(rows)
    tokens, log_probabilities = torch.tensor(rows), torch.log_softmax(llm.logits(), dim=-1)
    next_token = log_probabilities[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    first, second = next_token[:, :period].mean().item(), next_token[:, period + 1 :].mean().item()
    assert second > first + 3.0  # nats per token


def test_its_card_says_what_was_measured() -> None:
    card = (DEMO_MODEL / "README.md").read_text(encoding="utf-8")
    figures = json.loads((DEMO_MODEL / "training.json").read_text(encoding="utf-8"))
    bits = figures["held_out_bits_per_character"]
    assert bits <= 2.5
    assert f"{bits:.2f} bits per character" in card
    assert f"{max(map(max, figures['induction_scores'])):.2f}" in card
    assert re.search(r"scripts/train_demo_model\.py --text", card)


def test_it_is_small_and_safe() -> None:
    files = list(DEMO_MODEL.iterdir())
    assert sum(file.stat().st_size for file in files) <= 6 * MEGABYTES
    assert {file.suffix for file in files} <= {".json", ".md", ".safetensors"}
