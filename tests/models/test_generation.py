"""Generation beside plain Hugging Face: token for token in every family; chances, edits, and what ends a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel

from support.models.families import D_MODEL, FAMILIES, N_CTX, ROPE_BORDER, build_model, build_tokenizer
from support.servers.servers import tiny
from transparent_llm.errors import (
    IndexOutOfRangeError,
    InvalidRequestError,
    NotRunError,
    NotSupportedError,
    TooLargeError,
)
from transparent_llm.generation import GenerationSettings, Step
from transparent_llm.interventions import add, freeze, head, noise, patch, residual_out, set_to, zero
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL
from transparent_llm_server.models.generating import generation as generations
from transparent_llm_server.models.generating.choosing import Chooser
from transparent_llm_server.models.generating.remembering import RememberedRow, bytes_per_token, remembers

pytestmark = pytest.mark.filterwarnings("ignore:the tokenizer defines no token")

PROMPT = [1, 2, 3, 4, 5, 6, 7, 8, 9]
V = torch.linspace(-1.5, 2, D_MODEL).sin()


@cache
def plain(family: str = "gpt2") -> PreTrainedModel:
    """The same weights, untouched."""
    return build_model(FAMILIES[family]())


def by_hugging_face(model: PreTrainedModel, row: list[int], n: int, **settings: Any) -> list[int]:
    """The new tokens of its own `generate`."""
    tokens = torch.tensor([row])
    answer = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n, **settings)
    found: list[int] = answer[0, len(row) :].tolist()
    return found


def tokens_of(steps: Sequence[Step], row: int = 0) -> list[int]:
    return [step.tokens[row].token_id for step in steps if step.tokens[row] is not None]  # type: ignore[union-attr]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_that_of_hugging_face_and_then_everything_can_be_read(family: str) -> None:
    """Across the border of LongRoPE and beyond sliding windows."""
    llm = tiny(family).copy()
    steps = list(llm.generate_tokens([PROMPT], 12))
    wanted = by_hugging_face(plain(family), PROMPT, 12, do_sample=False)
    assert len(PROMPT) < ROPE_BORDER < len(PROMPT) + len(wanted)
    assert tokens_of(steps) == wanted
    assert remembers(llm.bridged)
    assert llm.tokens().tolist() == [PROMPT + wanted[:-1]]
    logits = plain(family)(llm.tokens()).logits[0, len(PROMPT) - 1 :].log_softmax(-1)
    told = torch.tensor([step.tokens[0].logprob for step in steps])  # type: ignore[union-attr]
    if family != "phi3_longrope":  # whose first ones are of a row below the border
        assert (told - logits.gather(1, torch.tensor(wanted)[:, None])[:, 0]).abs().max() <= 1e-3
    (alone,) = llm.copy().generate_tokens([PROMPT], 1)  # chosen by what its run has
    assert alone.tokens[0]._replace(finished=None) == steps[0].tokens[0]  # type: ignore[union-attr]
    again = tiny(family).copy()
    again.run_tokens([PROMPT + wanted[:-1]])
    assert torch.equal(llm.logits(), again.logits())
    assert torch.equal(llm.decomposed_attn(0, 1), again.decomposed_attn(0, 1))


def test_the_demo_model_goes_on_as_it_does_in_hugging_face() -> None:
    llm, text = TransformerLensTransparentLlm(str(DEMO_MODEL)), "The river"
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, trust_remote_code=False).eval()
    tokens = [
        0,
        *AutoTokenizer.from_pretrained(DEMO_MODEL, trust_remote_code=False)(text)["input_ids"],
    ]  # the beginning token first
    assert llm.to_tokens(text).tolist() == tokens
    steps = list(llm.generate(text, 30))
    assert tokens_of(steps) == by_hugging_face(model, tokens, 30, do_sample=False)
    assert [step.text for step in steps] == llm.tokens_to_strings(torch.tensor(tokens_of(steps)))


def test_rows_are_continued_as_if_each_were_alone() -> None:
    llm, rows = tiny("llama_gqa").copy(), [PROMPT, [11, 12], [21, 22, 23, 24]]
    ends = tokens_of(list(llm.generate_tokens([rows[1]], 9)))[3]
    together = list(llm.generate_tokens(rows, 9, stop=[ends], top_logprobs=3))
    for row, prompt in enumerate(rows):
        alone = list(llm.generate_tokens([prompt], 9, stop=[ends], top_logprobs=3))
        assert [step.tokens[row] for step in together if step.tokens[row] is not None] == [s.tokens[0] for s in alone]
    assert len(tokens_of(together, 1)) <= 4  # has come to its end before the others
    assert [step.tokens[1] is None for step in together].count(True) >= 5 or len(together) <= 4


def test_what_is_drawn_is_drawn_with_the_chances_of_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = plain(), {"temperature": 0.7, "top_k": 40, "top_p": 0.8}
    logits = model(torch.tensor([PROMPT])).logits[0, -1]
    asked = GenerationSettings(1, **settings)  # type: ignore[arg-type]
    found = Chooser(asked, 1).probabilities(logits)
    scores: list[torch.Tensor] = []
    multinomial = torch.multinomial

    def drawn(chances: torch.Tensor, *given: Any, **more: Any) -> torch.Tensor:
        scores.append(chances)
        return multinomial(chances, *given, **more)

    monkeypatch.setattr(torch, "multinomial", drawn)
    by_hugging_face(model, PROMPT, 1, do_sample=True, **settings)
    assert torch.equal(found > 0, scores[0][0] > 0)
    assert (found - scores[0][0]).abs().max() <= 1e-6
    assert 1 < int((found > 0).sum()) <= 40
    monkeypatch.undo()
    chooser = Chooser(asked, 1)
    counts = torch.bincount(torch.tensor([chooser.token(0, logits) for _ in range(4000)]), minlength=len(logits)) / 4000
    assert (counts - found).abs().max() <= 0.03  # four standard deviations


def test_a_seed_draws_the_same_again_and_another_one_something_else() -> None:
    llm = tiny().copy()

    def drawn(seed: int, rows: list[list[int]]) -> list[list[int]]:
        steps = list(llm.generate_tokens(rows, 12, temperature=1.5, seed=seed))
        return [tokens_of(steps, row) for row in range(len(rows))]

    two = drawn(3, [PROMPT, PROMPT])
    assert two == drawn(3, [PROMPT, PROMPT])
    assert two[0] != two[1]
    assert drawn(3, [PROMPT]) == two[:1]
    assert drawn(4, [PROMPT]) != two[:1]


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral"])
def test_edits_act_in_every_step_as_hooks_on_plain_modules_do(family: str) -> None:
    """Steering at all positions, and a head without effect, in a loop that remembers nothing."""
    llm, model = tiny(family).copy(), plain(family)
    layers = model.transformer.h if family == "gpt2" else model.model.layers
    output = layers[1].attn.c_proj if family == "gpt2" else layers[1].self_attn.o_proj
    width = D_MODEL // 4

    def steer(_module: Any, _given: Any, gives: Any) -> Any:
        return gives + 2 * V if isinstance(gives, torch.Tensor) else (gives[0] + 2 * V, *gives[1:])

    def ablate(_module: Any, given: Any) -> Any:
        z = given[0].clone()
        z[..., 2 * width : 3 * width] = 0
        return (z, *given[1:])

    handles = [layers[0].register_forward_hook(steer), output.register_forward_pre_hook(ablate)]
    row = list(PROMPT)
    for _ in range(8):
        row.append(int(model(torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
    for handle in handles:
        handle.remove()
    edits = [add(residual_out(0), V, 2.0, positions="all"), zero(head(1, 2))]
    steps = list(llm.generate_tokens([PROMPT], 8, edits=edits, stop=[]))
    assert tokens_of(steps) == row[len(PROMPT) :][: len(steps)]
    assert len(steps) == 8 or steps[-1].tokens[0].finished == "eos"  # type: ignore[union-attr]
    assert tokens_of(list(llm.generate_tokens([PROMPT], 8))) != tokens_of(steps)
    with llm.edits(*edits):
        assert list(llm.generate_tokens([PROMPT], 8)) == steps
    again = tiny(family).copy()
    again.run_tokens([row[: len(PROMPT) + len(steps) - 1]], edits=edits)
    assert torch.equal(llm.logits(), again.logits())
    assert [effect.changed for effect in llm.effects().edits] == [effect.changed for effect in again.effects().edits]


def test_edited_rows_of_different_lengths_are_those_of_runs_with_these_edits() -> None:
    llm = tiny("llama_gqa").copy()
    edits = [add(residual_out(0), V, 3.0, positions=[1], rows=[1]), noise(residual_out(1), 0.5, 1, positions="all")]
    rows = [list(PROMPT), [11, 12]]
    for step in llm.generate_tokens(rows, 5, edits=edits, stop=[]):
        beside = tiny("llama_gqa").copy()
        beside.run_tokens(rows, edits=edits)
        for row, token in enumerate(step.tokens):
            assert token is not None
            assert token.token_id == int(beside.logits()[row, len(rows[row]) - 1].argmax())
        rows = [[*row, token.token_id] for row, token in zip(rows, step.tokens, strict=True) if token is not None]
    assert len(rows[0]) == len(PROMPT) + 5


def test_stops_and_the_end_of_a_text() -> None:
    llm = tiny().copy()
    texts = [step.text for step in llm.generate("Nobody in the village knows", 10, temperature=1.0, seed=5)]
    drawn = {"temperature": 1.0, "seed": 5}
    joined = texts[3] + texts[4][:1]
    assert joined not in "".join(texts[:4])
    stopped = list(llm.generate("Nobody in the village knows", 10, stop=joined, **drawn))  # type: ignore[arg-type]
    assert [step.text for step in stopped] == texts[:5]  # in the midst of which it comes
    assert [step.tokens[0].finished for step in stopped] == [None] * 4 + ["stop"]  # type: ignore[union-attr]
    by_id = list(llm.generate("Nobody in the village knows", 10, stop=[tokens_of(stopped)[2]], **drawn))  # type: ignore[arg-type]
    assert tokens_of(by_id)[-1] == tokens_of(stopped)[2]
    assert by_id[-1].tokens[0].finished == "stop"  # type: ignore[union-attr]
    full = list(llm.generate("Nobody in the village knows", 3, **drawn))  # type: ignore[arg-type]
    assert [step.tokens[0].finished for step in full] == [None, None, "length"]  # type: ignore[union-attr]
    edits = [set_to(residual_out(1), llm.bridged.unembedding_of(0) * 50, positions="all")]
    ended = list(llm.generate("The river", 10, edits=edits))
    assert [(step.tokens[0].token_id, step.tokens[0].finished) for step in ended] == [(0, "eos")]  # type: ignore[union-attr]


def test_a_chat_is_rendered_by_the_tokenizers_own_template() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'x' %}{{ raise_exception('no x') }}{% endif %}"
        "<|endoftext|>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}mill:{% endif %}"
    )
    llm = TransformerLensTransparentLlm("chat", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=tokenizer)
    messages = [{"role": "system", "content": "The mill"}, {"role": "user", "content": "What is it?"}]
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    steps = list(llm.generate(messages=messages, max_new_tokens=2))
    assert llm.tokens()[0].tolist() == [*wanted, tokens_of(steps)[0]]
    with pytest.raises(InvalidRequestError, match="refuses these messages: 'no x'"):
        list(llm.generate(messages=[{"role": "x", "content": ""}]))
    with pytest.raises(NotSupportedError, match="no chat template"):
        list(tiny().generate(messages=messages))
    tokenizer.chat_template = "{{ messages.__class__.__mro__ }}"
    with pytest.raises(InvalidRequestError, match="refuses these messages"):  # transformers' sandbox
        list(llm.generate(messages=messages))


def test_a_model_that_does_not_remember_right_computes_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = tiny("olmo2").copy()
    wanted = list(llm.generate_tokens([PROMPT], 4))
    monkeypatch.setattr(generations, "remembers", lambda _: False)
    read: list[int] = []
    monkeypatch.setattr(RememberedRow, "logits", lambda *_: read.append(1))
    found = list(llm.generate_tokens([PROMPT], 4))
    assert not read
    assert tokens_of(found) == tokens_of(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert abs(one.tokens[0].logprob - other.tokens[0].logprob) <= 1e-3  # type: ignore[union-attr]


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "gemma2"])
def test_what_is_remembered_has_the_bytes_that_were_told_and_the_bits_of_hugging_faces_cache(family: str) -> None:
    """Beside sliding windows, which stay transformers' own."""
    llm, n = tiny(family).copy(), len(PROMPT)
    row, cache, read = RememberedRow(llm.bridged, 0, n + 3), DynamicCache(config=plain(family).config), 0
    for more in range(4):
        given = [*PROMPT, 10, 11, 12][: n + more]
        new, mask = torch.tensor([given[read:]]), torch.ones((1, len(given)), dtype=torch.int64)
        wanted = plain(family)(new, attention_mask=mask, past_key_values=cache, logits_to_keep=1).logits[0, -1]
        assert torch.equal(row.logits(given), wanted)
        read = len(given)
    held: Any = row._cache
    nbytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in held.layers if not layer.is_sliding)
    n_full = sum(not layer.is_sliding for layer in held.layers)
    assert n_full
    assert nbytes == (n + 3) * bytes_per_token(llm.bridged) * n_full // len(held.layers)
    with pytest.raises(RuntimeError):  # there is no room for more than was said
        row.logits([*PROMPT, 10, 11, 12, 13])


def test_a_loop_that_is_left_leaves_the_run_as_it_was() -> None:
    llm = tiny().copy()
    steps = llm.generate("The river", 5)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    with pytest.raises(NotRunError):
        llm.tokens()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"max_new_tokens": 0}, InvalidRequestError, "max_new_tokens is 0"),
        ({"max_new_tokens": 2**63}, TooLargeError, "9223372036854775808 new tokens, at most 4294967295"),
        ({"max_new_tokens": N_CTX}, TooLargeError, f"that is {N_CTX + 3}; the model's context is {N_CTX}"),
        ({"temperature": -1.0}, InvalidRequestError, "temperature is -1.0"),
        ({"temperature": float("nan")}, InvalidRequestError, "temperature must be a finite number"),
        ({"temperature": 1e-9}, InvalidRequestError, "from 0.01 to 100"),
        ({"top_k": 0}, InvalidRequestError, "top_k is 0"),
        ({"top_p": 0.0}, InvalidRequestError, "top_p is 0.0"),
        ({"seed": -1}, InvalidRequestError, "seed is -1"),
        ({"top_logprobs": 21}, TooLargeError, "21 top_logprobs, at most 20"),
        ({"stop": [""]}, InvalidRequestError, "a stop string is empty"),
        ({"stop": ["x" * 257]}, TooLargeError, "at most 256"),
        ({"stop": ["x"] * 17}, TooLargeError, "17 stop strings, at most 16"),
        ({"stop": [10_000]}, InvalidRequestError, "token 10000 is not in the vocabulary"),
        ({"stop": 1.5}, InvalidRequestError, "stop is a text"),
        (
            {"stop": torch.tensor(7)},
            InvalidRequestError,
            "stop is a text, or a list of texts and token ids, got Tensor 7",
        ),
        ({"stop": ["\ud800"]}, InvalidRequestError, "text is not valid Unicode"),
        ({"temperature": 10**400}, InvalidRequestError, "temperature must be a finite number"),
        ({"temperature": True}, InvalidRequestError, "temperature must be a finite number, got bool True"),
        ({"edits": [zero(head(0, 0), positions="last")]}, InvalidRequestError, "the last token is another one"),
        ({"edits": [zero(head(0, 0), positions=[-1])]}, InvalidRequestError, "the last token is another one"),
        ({"edits": [zero(head(0, 0), positions=[3])]}, IndexOutOfRangeError, "position 3 is out of range"),
        ({"edits": [zero(head(9, 0))]}, IndexOutOfRangeError, "layer 9 is out of range"),
        ({"edits": [freeze(head(0, 0))]}, InvalidRequestError, "grows with every step"),
        ({"messages": [{"role": "user", "content": "x"}]}, InvalidRequestError, "either a prompt or messages"),
        ({"prompt": None, "messages": [{"role": "user"}]}, InvalidRequestError, "each with these two"),
        ({"prompt": None, "messages": [{"role": "", "content": ""}] * 1025}, TooLargeError, "1025 messages of a chat"),
        ({"prompt": []}, InvalidRequestError, "nothing to run"),
        ({"prompt": 5}, InvalidRequestError, "a list of sentences"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_computed(given: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        list(tiny().copy().generate(**{"prompt": "The river", **given}))


def test_a_prompt_that_fills_the_context_is_not_told_to_ask_for_less() -> None:
    with pytest.raises(TooLargeError, match=f"the model's context is {N_CTX}: shorten it$"):
        list(tiny().copy().generate_tokens([[5] * N_CTX], 1))


@pytest.mark.parametrize("of", [np.float32, torch.tensor], ids=["numpy", "tensor"])
def test_numbers_of_arrays_and_tensors_are_numbers(of: Any) -> None:
    llm = tiny().copy()
    plain_ones = [step.tokens for step in llm.generate_tokens([PROMPT], 3, temperature=0.5, top_p=0.5, seed=1)]
    asked = llm.generate_tokens([PROMPT], 3, temperature=of(0.5), top_p=of(0.5), seed=1)
    assert [step.tokens for step in asked] == plain_ones


def test_more_of_the_likeliest_tokens_than_there_are_is_all_of_them() -> None:
    def drawn(top_k: int | None) -> list[int]:
        return tokens_of(list(tiny().copy().generate_tokens([PROMPT], 5, temperature=1.0, top_k=top_k)))

    assert drawn(2**63) == drawn(None)


def test_a_patch_from_a_run_that_is_too_short_for_the_last_step_is_refused_first() -> None:
    llm, source = tiny().copy(), tiny().copy()
    source.run_tokens([PROMPT])
    steps = llm.generate_tokens([PROMPT], 3, edits=[patch(residual_out(0), source)])
    with pytest.raises((InvalidRequestError, IndexOutOfRangeError)):
        next(steps)
    fits = llm.generate_tokens([PROMPT], 3, edits=[patch(residual_out(0), source, positions=range(9))])
    assert len(list(fits)) == 3


def test_logits_that_are_no_numbers_are_told() -> None:
    llm = tiny().copy()
    edits = [add(residual_out(1), V, 1e30, positions="all"), add(residual_out(1), V, 1e38, positions="all")]
    with pytest.raises(NotSupportedError, match="are not finite"):
        list(llm.generate_tokens([PROMPT], 2, edits=edits))
