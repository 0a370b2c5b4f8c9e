"""What each token hangs on, beside plain Hugging Face in float64: its gradients, its own way, its own occlusions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM

from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.sequence_attribution import sequence_attribution
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError
from transparent_llm.interventions import attn_out, zero
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

METHODS = ("saliency", "input_x_gradient", "integrated_gradients", "occlusion")
STEPS = 7
TOLERANCE = 2e-4
"""Of the largest of a tensor: float32 against float64."""


class Plain:
    """The demo model by itself: what it makes of embeddings, positions included."""

    def __init__(self, ids: list[int]) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, dtype=torch.float64, trust_remote_code=False)
        self.model.requires_grad_(False)
        self.ids = ids
        self._positions = self.model.transformer.wpe.weight[: len(ids)]
        self.embedded = self.model.transformer.wte.weight[ids] + self._positions

    def measured(self, embedded: torch.Tensor, target: int, measure: str) -> torch.Tensor:
        logits = self.model(inputs_embeds=(embedded - self._positions)[None]).logits[0, target - 1]
        told = {"logit": logits, "logprob": logits.log_softmax(-1), "prob": logits.softmax(-1)}[measure]
        return told[self.ids[target]]

    def gradient(self, embedded: torch.Tensor, target: int, measure: str) -> torch.Tensor:
        embedded = embedded.detach().requires_grad_()
        return torch.autograd.grad(self.measured(embedded, target, measure), embedded)[0]

    def saliency(self, target: int, measure: str) -> torch.Tensor:
        return self.gradient(self.embedded, target, measure).norm(dim=1)

    def input_x_gradient(self, target: int, measure: str) -> torch.Tensor:
        return (self.embedded * self.gradient(self.embedded, target, measure)).sum(1)

    def integrated_gradients(self, target: int, measure: str) -> torch.Tensor:
        """From zeros, by numpy's nodes and weights."""
        nodes, weights = numpy.polynomial.legendre.leggauss(STEPS)
        mean = torch.zeros_like(self.embedded)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            mean += weight * self.gradient(node * self.embedded, target, measure)
        return (self.embedded * mean).sum(1)

    def occlusion(self, target: int, measure: str) -> torch.Tensor:
        lost = []
        for pos in range(len(self.ids)):
            without = self.embedded.clone()
            without[pos] = 0
            whole, left = (self.measured(one, target, measure) for one in (self.embedded, without))
            lost.append(whole - left)
        return torch.stack(lost)


@pytest.fixture(scope="module")
def plain(rows: list[list[int]]) -> Plain:
    return Plain(rows[0])


@pytest.fixture
def ran(demo: TransformerLensTransparentLlm, rows: list[list[int]]) -> TransformerLensTransparentLlm:
    """The row of the plain model behind a shorter one."""
    twin = demo.copy()
    twin.run_tokens([rows[1][:4], rows[0]])
    return twin


@pytest.mark.parametrize("measure", ["logprob", "logit", "prob"])
@pytest.mark.parametrize("method", METHODS)
def test_each_token_hangs_on_what_the_plain_model_says(
    ran: TransformerLensTransparentLlm, plain: Plain, method: Any, measure: Any
) -> None:
    found = sequence_attribution(ran, method, measure=measure, batch_i=1, steps=STEPS)
    of: Callable[[int, str], torch.Tensor] = getattr(plain, method)
    targets = range(1, len(plain.ids))
    wanted = torch.stack([of(target, measure) for target in targets])
    assert found["value"].shape == wanted.shape
    for line, target in enumerate(targets):
        size = float(wanted[line].abs().max())
        assert size > 1e-6
        assert float((found["value"][line].double() - wanted[line]).abs().max()) <= TOLERANCE * max(0.01, size)
        assert not found["value"][line, target:].any()
    told = torch.stack([plain.measured(plain.embedded, target, measure) for target in targets])
    assert torch.allclose(found["measure"], told, atol=1e-4)


def test_the_sum_of_integrated_gradients_is_what_it_says(ran: TransformerLensTransparentLlm, plain: Plain) -> None:
    found = sequence_attribution(ran, "integrated_gradients", batch_i=1, steps=STEPS, from_pos=-3)
    nothing = torch.zeros_like(plain.embedded)
    for line, target in enumerate(range(len(plain.ids) - 3, len(plain.ids))):
        span = plain.measured(plain.embedded, target, "logprob") - plain.measured(nothing, target, "logprob")
        assert float(found["value"][line].sum() - found["delta"][line]) == pytest.approx(float(span), abs=1e-3)


def test_what_was_generated_is_explained_and_remote_is_local(
    demo: TransformerLensTransparentLlm, remote: RemoteTransparentLlm
) -> None:
    prompt = "My lord, the king of France"
    n_prompt, done = len(demo.to_tokens(prompt)), []
    tables = []
    for llm in (demo.copy(), remote.copy()):
        *_, last = llm.generate(prompt, max_new_tokens=6)
        for method in METHODS:
            table = sequence_attribution(
                llm,
                method,  # type: ignore[arg-type]
                from_pos=n_prompt,
                following=last.tokens[0].token_id,
                steps=2,
                edits=[zero(attn_out(2))],
                progress=lambda count, total: done.append((count, total)),
            )
            tables.append(table)
    for here, there in zip(tables[:4], tables[4:], strict=True):
        assert here["value"].shape == (6, n_prompt + 5)
        assert torch.equal(here["value"], there["value"])
        assert [axis.labels["token"] for axis in here.axes] == [axis.labels["token"] for axis in there.axes]
        assert here.axes[0].coordinates == range(n_prompt, n_prompt + 6)
    assert done[:6] == [(count, 6) for count in range(1, 7)]


def test_edits_change_what_is_explained(ran: TransformerLensTransparentLlm) -> None:
    edits = [zero(attn_out(2))]
    edited = ran.copy()
    edited.run_tokens(ran.tokens().tolist(), edits=edits)
    plain, changed = (sequence_attribution(ran, batch_i=1, edits=some) for some in ((), edits))
    assert not torch.allclose(plain["value"], changed["value"], atol=1e-3)
    logprobs = edited.logits()[1].log_softmax(-1)[:-1].gather(1, edited.tokens()[1, 1:, None])[:, 0]
    assert torch.allclose(changed["measure"], logprobs.double(), atol=1e-4)


def test_a_token_behind_the_row_is_explained_as_in_the_longer_row(
    ran: TransformerLensTransparentLlm, rows: list[list[int]]
) -> None:
    shorter = ran.copy()
    shorter.run_tokens([rows[0][:-1]])
    for method in METHODS:
        whole = sequence_attribution(ran, method, batch_i=1, steps=2)  # type: ignore[arg-type]
        same = sequence_attribution(shorter, method, following=rows[0][-1], steps=2)  # type: ignore[arg-type]
        assert torch.allclose(same["value"], whole["value"][:, :-1], atol=1e-4)
        assert list(same.axes[0].labels["token"]) == list(whole.axes[0].labels["token"])


def test_occlusion_of_more_tokens_than_one_sweep_measures(demo: TransformerLensTransparentLlm) -> None:
    llm = demo.copy()
    llm.run_tokens([list(range(40, 75))])
    whole, last = sequence_attribution(llm, "occlusion"), sequence_attribution(llm, "occlusion", from_pos=-1)
    assert whole["value"].shape == (34, 35)
    assert torch.allclose(whole["value"][-1:], last["value"], atol=1e-4)


def refused(ran: TransformerLensTransparentLlm) -> Iterator[tuple[type[Exception], str, Callable[[], object]]]:
    one = ran.copy()
    one.run_tokens([[5]])
    yield InvalidRequestError, "row 0 has 1 token", lambda: sequence_attribution(one)
    yield InvalidRequestError, "from_pos is 1 at least", lambda: sequence_attribution(ran, from_pos=0)
    yield InvalidRequestError, "from_pos is 1 at least", lambda: sequence_attribution(ran, from_pos=-4)
    yield InvalidRequestError, "' lord king'", lambda: sequence_attribution(one, following=" lord king")
    yield IndexOutOfRangeError, "from_pos 4", lambda: sequence_attribution(ran, from_pos=4)
    yield InvalidRequestError, "saliency has no baseline", lambda: sequence_attribution(ran, "saliency", baseline=3)
    yield (
        InvalidRequestError,
        "occlusion has no frozen parts",
        lambda: sequence_attribution(ran, "occlusion", frozen=["patterns"]),
    )
    yield InvalidRequestError, "'lime'", lambda: sequence_attribution(ran, "lime")  # type: ignore[arg-type]
    yield InvalidRequestError, "'loss'", lambda: sequence_attribution(ran, measure="loss")  # type: ignore[arg-type]


def test_what_makes_no_sense_is_refused_in_words(ran: TransformerLensTransparentLlm) -> None:
    for kind, words, ask in refused(ran):
        with pytest.raises(kind) as error:
            ask()
        assert words in str(error.value)


def test_an_object_without_gradients_is_told_so(ran: TransformerLensTransparentLlm) -> None:
    class Other:
        def __getattr__(self, name: str) -> Any:
            return getattr(ran, name)

    for method in ("saliency", "occlusion"):
        with pytest.raises(NotSupportedError):
            sequence_attribution(Other(), method)  # type: ignore[arg-type]
