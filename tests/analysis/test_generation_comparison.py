"""Plain and edited continuations beside plain Hugging Face with hooks in float64, here and over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from support.models.given import ContractOnly
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.generation_comparison import GenerationComparison, compare_generations
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError
from transparent_llm.interventions import add, head, residual_out, zero
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

PROMPT, N = "My lord, the king", 10
DIRECTION = torch.linspace(-1.5, 2, 128).sin()
EDITS = [add(residual_out(0), DIRECTION, 2.0, positions="all"), zero(head(1, 2))]


@contextmanager
def changed(model: Any) -> Iterator[None]:
    """The same edits as hooks of Hugging Face's modules."""

    def steer(_module: Any, _given: Any, gives: Any) -> Any:
        return gives + 2 * DIRECTION if isinstance(gives, torch.Tensor) else (gives[0] + 2 * DIRECTION, *gives[1:])

    def ablate(_module: Any, given: Any) -> Any:
        z = given[0].clone()
        z[..., 64:96] = 0
        return (z, *given[1:])

    layers = model.transformer.h
    handles = [layers[0].register_forward_hook(steer), layers[1].attn.c_proj.register_forward_pre_hook(ablate)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def logits(model: Any, row: list[int], *, is_edited: bool) -> torch.Tensor:
    """[pos d_vocab] of a whole pass."""
    if not is_edited:
        return model(torch.tensor([row]), use_cache=False).logits[0]
    with changed(model):
        return model(torch.tensor([row]), use_cache=False).logits[0]


def test_both_texts_and_the_divergence_by_token_are_those_of_hooks_in_hugging_face(
    demo: TransformerLensTransparentLlm,
) -> None:
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, trust_remote_code=False).eval().double()
    found = compare_generations(demo, PROMPT, EDITS, N)
    prompt = demo.to_tokens(PROMPT).tolist()
    for side, is_edited in ((found.plain, False), (found.edited, True)):
        row = list(prompt)
        for _ in range(N):
            row.append(int(logits(model, row, is_edited=is_edited)[-1].argmax()))
        assert side.ids == row[len(prompt) :]
        plain, edited = (
            logits(model, row, is_edited=each)[len(prompt) - 1 : -1].log_softmax(-1) for each in (False, True)
        )
        wanted = (edited.exp() * (edited - plain)).sum(-1)
        assert side.kl.shape == (N,)
        assert side.kl.dtype == torch.float64
        assert (side.kl - wanted).abs().max() <= 1e-4 * wanted.max()
        own = (edited if is_edited else plain)[range(N), side.ids]
        assert (torch.tensor([token.logprob for token in side.tokens]) - own).abs().max() <= 1e-3
    at = found.parts_at
    assert at is not None
    assert at < N - 2  # so that there is something behind
    assert found.plain.ids[:at] == found.edited.ids[:at]
    assert found.plain.ids[at] != found.edited.ids[at]
    assert torch.allclose(found.plain.kl[: at + 1], found.edited.kl[: at + 1], atol=1e-5)
    assert not torch.allclose(found.plain.kl[at + 1 :], found.edited.kl[at + 1 :], atol=1e-2)


def test_it_is_the_same_over_the_wire_and_shows_both_texts(
    demo: TransformerLensTransparentLlm, remote: RemoteTransparentLlm
) -> None:
    here, there = (compare_generations(llm, PROMPT, EDITS, N) for llm in (demo, remote))
    for one, other in ((here.plain, there.plain), (here.edited, there.edited)):
        assert one.tokens == other.tokens
        assert torch.equal(one.kl, other.kl)
    assert str(here) == str(there)
    assert len(str(here).splitlines()) == N + 2
    assert f"they part at step {here.parts_at}" in str(here)
    page = here._repr_html_()
    words = [token.text.strip() for token in (*here.plain.tokens, *here.edited.tokens)]
    assert all(word in page for word in words if word.isalpha())
    assert page.count("outline: 2px solid") == 2
    assert torch.equal(here.labelled()["edited_kl"], here.edited.kl)


def test_it_is_refused_within_a_block_that_cuts_axes(remote: RemoteTransparentLlm) -> None:
    with remote.reading(pos=slice(-1, None)), pytest.raises(InvalidRequestError, match="this reading block cuts pos"):
        compare_generations(remote, PROMPT, EDITS, N)


@pytest.mark.parametrize("llm", ["demo", "remote"])
def test_several_prompts_give_as_many_comparisons_each_as_alone(
    llm: str, demo: TransformerLensTransparentLlm, request: pytest.FixtureRequest
) -> None:
    """Only the second row is edited; a stop ends rows at other lengths."""
    asked = request.getfixturevalue(llm)
    asked.run(["the run before"])
    before = asked.tokens()
    prompts = ["The river", PROMPT]
    edits = [add(residual_out(0), DIRECTION, 2.0, positions="all", rows=[1])]
    other, own = (each.plain.ids for each in compare_generations(demo, prompts, edits, N))
    ends = next(token for token in own[1:-1] if token not in other)
    compare = partial(compare_generations, asked, max_new_tokens=N, stop=[ends], top_logprobs=2)
    found = compare(prompts, edits)
    assert isinstance(found, tuple)
    assert [each.batch_i for each in found] == [0, 1]
    assert found[0].parts_at is None
    assert found[0].plain.ids == found[0].edited.ids
    assert "the same tokens" in str(found[0])
    assert found[0].plain.kl.abs().max() <= 1e-9
    assert len(found[1].plain.tokens) < len(found[0].plain.tokens) == N
    alone = compare(PROMPT, [add(residual_out(0), DIRECTION, 2.0, positions="all")])
    assert isinstance(alone, GenerationComparison)
    assert alone.plain.tokens == found[1].plain.tokens
    assert alone.edited.ids == found[1].edited.ids
    for one, other in ((alone.plain, found[1].plain), (alone.edited, found[1].edited)):
        assert torch.allclose(one.kl, other.kl, atol=1e-5)
    assert len(str(alone).splitlines()) == 2 + max(len(alone.plain.ids), len(alone.edited.ids))
    assert torch.equal(asked.tokens(), before)  # its own run stays


@pytest.mark.parametrize("llm", ["demo", "remote"])
def test_what_cannot_be_compared_is_refused(llm: str, request: pytest.FixtureRequest) -> None:
    asked = request.getfixturevalue(llm)
    with pytest.raises(InvalidRequestError, match="edits are empty"):
        compare_generations(asked, PROMPT, [])
    with pytest.raises(InvalidRequestError, match="edits is a list"):
        compare_generations(asked, PROMPT, EDITS[0])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="the last token is another one in every step"):
        compare_generations(asked, PROMPT, [add(residual_out(0), DIRECTION, positions="last")])
    with pytest.raises(NotSupportedError, match="ContractOnly cannot go on with texts"):
        compare_generations(ContractOnly(asked), PROMPT, EDITS)
    one, other, shorter = asked.copy(), asked.copy(), asked.copy()
    one.run_tokens([[1, 2, 3, 4], [5, 6]])
    other.run_tokens([[1, 2, 3, 4], [5, 7]])
    shorter.run_tokens([[1, 2, 3, 4], [5]])
    with pytest.raises(IndexOutOfRangeError, match="from_pos 2 is out of range: valid indices are 0 to 1"):
        one.compare(one, 2)
    for twin in (other, shorter):
        with pytest.raises(InvalidRequestError, match="runs of other tokens"):
            one.compare(twin, 0)
    assert [len(row.kl_by_pos) for row in one.compare(one, 1)] == [3, 1]
