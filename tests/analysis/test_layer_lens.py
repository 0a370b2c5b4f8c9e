"""The lens at one place against plain Hugging Face, sorted and summed by hand in float64."""

from __future__ import annotations

import math

import pytest
import torch

from support.models.batch import LENGTHS, ROWS
from support.models.families import FAMILIES, build_model
from support.models.last_step import LastStepReference
from support.models.reference import HuggingFaceReference
from transparent_llm.analysis.layer_lens import _ranks, layer_lens
from transparent_llm.analysis.logit_lens import logit_lens
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError
from transparent_llm.testing import serve_in_process
from transparent_llm_server import TransformerLensTransparentLlm

TOLERANCE = 1e-4
TARGETS = (3, 7)


def logits_at(reference: HuggingFaceReference, row: int, layer: int) -> torch.Tensor:
    """As it leaves the layer, real positions only [pos vocab], in float64."""
    stream = reference.residual_out(layer)[row, : LENGTHS[row]]
    return torch.stack([reference.unembed(vector, True) for vector in stream]).double()


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert got.dtype == torch.float32
    assert got.shape == wanted.shape
    assert (got.double() - wanted).abs().max().item() <= TOLERANCE * max(1.0, float(wanted.abs().max()))


def test_every_family(llm: TransformerLensTransparentLlm, reference: HuggingFaceReference) -> None:
    for row, layer in ((0, 0), (1, 1)):
        found = layer_lens(llm, row, layer, k=4, bottom_k=2, token_ids=TARGETS, with_kl=True)
        wanted, n = logits_at(reference, row, layer), LENGTHS[row]
        ordered = wanted.sort(dim=1, descending=True)
        close(found.top_logits[:n], ordered.values[:, :4])
        close(found.top_logits[:n], wanted.gather(1, found.top_ids[:n]))
        close(found.bottom_logits[:n], ordered.values.flip(1)[:, :2])
        close(found.bottom_logits[:n], wanted.gather(1, found.bottom_ids[:n]))
        close(found.target_logits[:n], wanted[:, TARGETS])
        close(found.logsumexp[:n], wanted.exp().sum(dim=1).log())
        p = wanted.softmax(dim=1)
        close(found.entropy[:n], -(p * p.log()).sum(dim=1))
        q = reference.logits()[row, :n].double().softmax(dim=1)
        assert found.kl is not None
        close(found.kl[:n], (q * (q / p).log()).sum(dim=1))


def test_ranks_are_places_in_the_sorted_vocabulary(gpt2: TransformerLensTransparentLlm) -> None:
    found = layer_lens(gpt2, 0, 0, k=500, token_ids=TARGETS)
    for pos in range(LENGTHS[0]):
        order = found.top_ids[pos].tolist()
        assert sorted(order) == list(range(500))
        assert [order.index(token) for token in TARGETS] == found.target_ranks[pos].tolist()


def test_of_many_tokens_ranks_are_what_they_are_of_few(gpt2: TransformerLensTransparentLlm) -> None:
    """Ties and all, with whatever is no number."""
    many, few = (layer_lens(gpt2, 0, 0, token_ids=tokens).target_ranks for tokens in (range(500), range(20)))
    assert torch.equal(many[:, :20], few)
    assert torch.equal(many.sort(dim=1).values, torch.arange(500).expand(len(many), -1))
    odd = torch.tensor([[1.0, math.nan, 1.0, math.inf, -math.inf, 2.0]]).repeat(2, 8)
    assert torch.equal(_ranks(odd, odd), torch.cat([_ranks(odd, part) for part in odd.split(6, dim=1)], dim=1))


def test_the_last_layer_gives_the_output(llm: TransformerLensTransparentLlm) -> None:
    found = layer_lens(llm, 0, -1, k=5, with_kl=True)
    close(found.top_logits, llm.logits()[0].double().gather(1, found.top_ids))
    assert found.kl is not None
    assert found.kl.abs().max() <= 1e-6


def test_a_difference_is_what_was_added(gpt2: TransformerLensTransparentLlm) -> None:
    found = layer_lens(gpt2, 0, 1, 1, "out", "after_attn", "none", k=3)
    wanted = gpt2.unembed(gpt2.ffn_out(1)[0], normalize=False).double()
    close(found.top_logits, wanted.topk(3).values)


def test_padding_has_no_answer(gpt2: TransformerLensTransparentLlm) -> None:
    found = layer_lens(gpt2, 2, 0, k=2, bottom_k=1, token_ids=TARGETS, with_kl=True)
    for tensor in found:
        assert tensor is not None
        padded = tensor[LENGTHS[2] :]
        assert (padded == -1).all() if tensor.dtype == torch.int64 else padded.isnan().all()
        real = tensor[: LENGTHS[2]]
        assert (real >= 0).all() if tensor.dtype == torch.int64 else real.isfinite().all()


def test_a_row_is_what_the_sentence_alone_is(llm: TransformerLensTransparentLlm) -> None:
    alone = llm.copy()
    alone.run_tokens([ROWS[1]])
    n = LENGTHS[1]
    here, there = layer_lens(llm, 1, 1, k=3), layer_lens(alone, 0, 1, k=3)
    for name in ("top_logits", "logsumexp", "entropy"):
        close(getattr(here, name)[:n], getattr(there, name).double())


def test_positions_are_taken_in_the_order_asked_for(gpt2: TransformerLensTransparentLlm) -> None:
    whole, some = layer_lens(gpt2, 1, 1, k=2), layer_lens(gpt2, 1, 1, positions=(-1, 0, LENGTHS[1]), k=2)
    last = LENGTHS[1] - 1
    assert some.top_ids[:2].tolist() == [whole.top_ids[last].tolist(), whole.top_ids[0].tolist()]
    assert some.top_ids[2].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        (IndexOutOfRangeError, {"layer": 9}, "layer 9"),
        (IndexOutOfRangeError, {"batch_i": 3}, "batch_i 3"),
        (IndexOutOfRangeError, {"positions": (99,)}, "pos 99"),
        (InvalidRequestError, {"token_ids": (500,)}, "token 500 is not in the vocabulary"),
        (InvalidRequestError, {"k": 501}, "k must be 0 to 500, the number of tokens"),
        (InvalidRequestError, {"point": "middle"}, 'must be one of "out", "in", "after_attn"'),
        (InvalidRequestError, {"normalize": "yes"}, 'must be one of "own", "frozen", "none"'),
    ],
)
def test_what_cannot_be_is_refused(
    gpt2: TransformerLensTransparentLlm, kind: type[Exception], arguments: dict[str, object], words: str
) -> None:
    given: dict[str, object] = {"batch_i": 0, "layer": 0, **arguments}
    with pytest.raises(kind, match=words):
        layer_lens(gpt2, **given)  # type: ignore[arg-type]


def test_a_model_that_gives_no_number_gives_none_here(gpt2: TransformerLensTransparentLlm) -> None:
    """What is not finite stays so."""
    llm = gpt2.copy()
    found = llm.unembed(torch.full((gpt2.model_info().d_model,), math.nan), normalize=False)
    assert found.isnan().all()
    top = llm.top_tokens_of(torch.full((gpt2.model_info().d_model,), math.nan), k=1)
    assert top.logits.isnan().all()


def test_the_grid_is_made_of_lenses(gpt2: TransformerLensTransparentLlm) -> None:
    grid = logit_lens(gpt2, 1, k=3, token_ids=TARGETS, mid=True)
    assert grid.places == (("in", 0), ("after_attn", 0), ("out", 0), ("after_attn", 1), ("out", 1))
    assert grid.positions == tuple(range(LENGTHS[1]))
    for i, (point, layer) in enumerate(grid.places):
        one = layer_lens(gpt2, 1, layer, point=point, positions=grid.positions, k=3, token_ids=TARGETS, with_kl=True)
        assert torch.equal(grid.ids[i], one.top_ids)
        assert torch.equal(grid.logits[i], one.top_logits)
        assert torch.equal(grid.token_ranks[i], one.target_ranks)
        close(grid.probs[i], (one.top_logits.double() - one.logsumexp.double()[:, None]).exp())
    assert grid.strings[0][0][0] == gpt2.tokens_to_strings(grid.ids[0, 0, :1])[0]
    assert list(grid.tokens) == gpt2.tokens_to_strings(gpt2.tokens()[1, : LENGTHS[1]])
    last = logit_lens(gpt2, 1, layers=[-1], positions="last", with_kl=False)
    assert (last.places, last.positions, last.kl) == ((("out", 1),), (LENGTHS[1] - 1,), None)


def frozen(
    llm: TransformerLensTransparentLlm, layer: int, minus: int | None = None, point: str = "out"
) -> torch.Tensor:
    """Of row 1, the whole vocabulary in its own order [pos vocab]."""
    tokens = tuple(range(llm.model_info().d_vocab))
    at = tuple(range(LENGTHS[1]))
    return layer_lens(llm, 1, layer, minus, point, "in", "frozen", at, token_ids=tokens).target_logits.double()


def test_frozen_is_the_last_step_by_hand(family: str, llm: TransformerLensTransparentLlm) -> None:
    step, n, last = LastStepReference(build_model(FAMILIES[family]())), LENGTHS[1], llm.model_info().n_layers - 1
    got = frozen(llm, 0)
    for pos in (0, n - 1):
        part, whole = llm.residual_out(0)[1, pos], llm.residual_out(last)[1, pos]
        for token in (*TARGETS, 499):
            wanted = float(step.terms(part, whole, token))
            assert abs(float(got[pos, token]) - wanted) <= 1e-5 * max(1.0, abs(wanted))


def test_frozen_parts_sum_to_the_whole(llm: TransformerLensTransparentLlm) -> None:
    n_layers = llm.model_info().n_layers
    parts = frozen(llm, 0, point="in")
    for layer in range(n_layers):
        parts += frozen(llm, layer, layer)
    assert (parts - frozen(llm, -1)).abs().max().item() <= 1e-5 * max(1.0, float(parts.abs().max()))


def test_frozen_at_the_last_layer_is_the_logit_less_its_biases(llm: TransformerLensTransparentLlm) -> None:
    tokens = tuple(range(llm.model_info().d_vocab))
    readout = llm.readout(tokens)
    wanted = llm.logits()[1, : LENGTHS[1]].double()
    if readout.soft_cap is not None:
        wanted = (wanted / readout.soft_cap).atanh() * readout.soft_cap
    wanted = wanted - readout.norm_bias - readout.unembed_bias
    assert (frozen(llm, -1) - wanted).abs().max().item() <= 1e-5 * max(1.0, float(wanted.abs().max()))


def test_frozen_needs_to_know_the_last_step(gpt2: TransformerLensTransparentLlm) -> None:
    with serve_in_process(gpt2.copy()) as remote:
        remote.run_tokens(ROWS)
        with pytest.raises(NotSupportedError, match="does not say how logits are made of the residual stream"):
            layer_lens(remote, 0, 0, normalize="frozen")
        far, near = (logit_lens(each, 1, normalize="frozen", k=3) for each in (remote, gpt2))
        assert torch.equal(far.logits, near.logits)
