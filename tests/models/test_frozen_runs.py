"""Runs in which parts of a model are held at what another run had: what is left is linear, and attribution says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.test_edited_runs import (
    ATTN_NORMS,
    DOWNS,
    EXPERTS,
    OUTPUTS,
    PARALLEL,
    ROW,
    blocks,
    edited,
    part,
    ran,
    require_close,
)
from support.models.families import FAMILIES, N_HEADS, build_model, build_tokenizer
from support.servers.servers import tiny
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.interventions import (
    Intervention,
    Site,
    add,
    attn_out,
    ffn_out,
    final_norm_scale,
    freeze,
    head,
    key,
    neurons,
    norm_scale,
    patch,
    pattern,
    query,
    residual_after_attn,
    residual_in,
    residual_out,
    scale,
    set_to,
    value,
    value_of,
    zero,
)
from transparent_llm_server import TransformerLensTransparentLlm

SHORT = [9, 8, 7]
OTHER, OTHER_SHORT = [11, 12, 13, 14, 15, 16, 17], [3, 4, 5]
SHARED = ("gptj", "phi", "falcon", "cohere")
"""Families whose two parts read what one norm gives."""

PLACES = ("attn", "ffn", "attn_post", "ffn_post")
TOLERANCE = 1e-5
V = torch.linspace(-1, 2, 16).sin()


def norms(family: str) -> list[str]:
    if family == "olmo2":
        return ["attn_post", "ffn_post"]
    return list(PLACES) if family in ("gemma2", "gemma3") else ["attn", "ffn"]


def n_layers(family: str) -> int:
    return len(blocks(build_model(FAMILIES[family]())))


def all_norms(family: str) -> list[Site]:
    layers = range(n_layers(family))
    return [*(norm_scale(layer, norm) for layer in layers for norm in norms(family)), final_norm_scale()]


def linear(family: str) -> list[Intervention]:
    """What leaves a model linear in what is added to it."""
    layers = range(n_layers(family))
    return [freeze(site) for site in (*all_norms(family), *map(pattern, layers), *map(ffn_out, layers))]


class Reference:
    """A plain model whose norms, softmaxes and feed-forward parts give what they gave in a first pass."""

    def __init__(self, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model: Any = build_model(FAMILIES[family]())
        self.held: dict[Any, list[torch.Tensor]] = {}
        self.is_frozen = False
        self.family = family
        downs = [block.mlp if family in EXPERTS else part(block, DOWNS) for block in blocks(self.model)]
        for name, module in self.model.named_modules():
            if "Norm" in type(module).__name__:
                module.forward = self._norm(name, module)
            if any(module is down for down in downs):
                module.register_forward_hook(self._output(name))
        monkeypatch.setattr(torch.nn.functional, "softmax", self._kept("softmax", torch.nn.functional.softmax))

    def logits(self) -> torch.Tensor:
        self.turns: dict[Any, int] = {}
        found: torch.Tensor = self.model(torch.tensor([ROW]), use_cache=False).logits[0]
        return found

    def _value(self, key: Any, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        n = self.turns.get(key, 0)
        self.turns[key] = n + 1
        if not self.is_frozen:
            self.held.setdefault(key, []).append(compute().clone())
        return self.held[key][n].clone()  # some families add to what they are given

    def _kept(self, key: Any, function: Any) -> Any:
        return lambda *args, **kwargs: self._value(key, lambda: function(*args, **kwargs))

    def _output(self, name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            found = self._value(name, lambda: first)
            return (found, *output[1:]) if isinstance(output, tuple) else found

        return hook

    def _norm(self, name: str, module: Any) -> Any:
        eps = getattr(module, "variance_epsilon", None) or module.eps

        def forward(x: torch.Tensor) -> torch.Tensor:
            x = x - x.mean(-1, keepdim=True) if "LayerNorm" in type(module).__name__ else x
            divisor = self._value(name, lambda: (x.square().mean(-1, keepdim=True) + eps).sqrt())
            gain = 1 + module.weight if type(module).__name__.startswith("Gemma") else module.weight
            bias = getattr(module, "bias", None)
            return x / divisor * gain + (0 if bias is None else bias)

        return forward


def added_at_head(family: str, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """By how much the logits of the plain model change [pos d_vocab], as V is added to head 1 of layer 0 at 2 and 4."""
    reference = Reference(family, monkeypatch)
    before = reference.logits()
    reference.is_frozen = True

    def hook(_: Any, args: Any) -> Any:
        z = args[0].clone().view(len(ROW), N_HEADS, -1)
        z[[2, 4], 1] += V[: z.shape[2]] if z.shape[2] <= len(V) else torch.cat([V, V])
        return (z.view(args[0].shape), *args[1:])

    part(blocks(reference.model)[0], OUTPUTS).register_forward_pre_hook(hook)
    after = reference.logits()
    monkeypatch.undo()
    return after - before


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_added_at_a_head_of_a_frozen_model(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the plain model; and as attribution says of each part."""
    wanted, plain = added_at_head(family, monkeypatch), ran(family, ROW)
    v = V if plain.bridged.layers[0].heads.d_head == len(V) else torch.cat([V, V])
    llm = edited(family, *linear(family), add(head(0, 1), v, positions=[2, 4]))
    assert (llm.logits()[0] - plain.logits()[0] - wanted).abs().max().item() <= TOLERANCE
    assert wanted[2:].abs().max() > 0.1
    before, after = (one.attribution(7, pos=4) for one in (plain, llm))
    if family != "gemma2":  # whose logits are capped
        assert float(after["total"]) == pytest.approx(float(llm.logits()[0, 4, 7]), abs=TOLERANCE)
        assert float(after["total"] - before["total"]) == pytest.approx(float(wanted[4, 7]), abs=TOLERANCE)
    moved = after["heads"] - before["heads"]
    assert float(moved.sum()) == pytest.approx(float(after["total"] - before["total"]), abs=TOLERANCE)
    for name in ("attn_bias", "ffn", "embedding", "norm_bias", "unembed_bias"):
        assert (after[name] - before[name]).abs().max() <= TOLERANCE
    others = [h for h in range(N_HEADS) if h != 1]
    assert moved[0, others].abs().max() <= TOLERANCE


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_added_once_more_adds_its_attribution(family: str, layer: int) -> None:
    """Its direct effect: what later attention makes of it is held too."""
    plain = ran(family, ROW)
    site = head(layer, 2)
    later = [freeze(attn_out(i)) for i in range(layer + 1, n_layers(family))]
    llm = edited(family, *linear(family), *later, add(site, value_of(site, plain, pos=4), positions=[4]), rows=[ROW])
    before, after = (one.attribution(7, 8, pos=4) for one in (plain, llm))
    term = float(before["heads"][layer, 2])
    assert float(after["total"] - before["total"]) == pytest.approx(term, abs=TOLERANCE)
    if family != "gemma2":
        change = llm.logits()[0, 4] - plain.logits()[0, 4]
        assert float(change[7] - change[8]) == pytest.approx(term, abs=TOLERANCE)
    assert abs(term) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_each_norm_divides_by_what_another_run_had(family: str) -> None:
    rows, others = [ROW, SHORT], [OTHER, OTHER_SHORT]
    plain, other = ran(family, *rows), ran(family, *others)
    for site in all_norms(family):
        same = edited(family, freeze(site), rows=rows)
        assert torch.equal(same.logits(), plain.logits()), site
        assert same.effects()[0].changed == 0
        llm = edited(family, freeze(site, other), rows=rows)
        assert llm.effects()[0].changed == len(ROW) + len(SHORT)
        assert not torch.equal(llm.logits(), plain.logits())
        again = edited(family, freeze(site, llm), rows=rows)  # what a run has is what it was frozen to
        assert torch.equal(again.logits(), llm.logits())
    sites = [*all_norms(family), *map(pattern, range(n_layers(family)))]
    llm = edited(family, *(freeze(site, other) for site in sites), rows=rows)
    n_same = n_layers(family) if family in SHARED else 0  # one norm, frozen twice
    assert sum(effect.changed == 0 for effect in llm.effects()) == n_same
    assert torch.equal(edited(family, *(freeze(site, llm) for site in sites), rows=rows).logits(), llm.logits())


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_frozen_is_what_it_was_whatever_comes_before_it(family: str) -> None:
    plain = ran(family, ROW)
    moved = add(residual_in(0), torch.linspace(0, 3, 64).cos(), 2.0, positions=[1])
    sites = [pattern(1), pattern(1, 2), head(1), head(1, 2), attn_out(1), ffn_out(1), residual_in(1), residual_out(1)]
    if family not in PARALLEL:
        sites.append(residual_after_attn(1))
    for site in sites:
        llm = edited(family, moved, freeze(site))
        read: Any = {
            "pattern": lambda one: one.attention_matrix(0, 1, 2),
            "head": lambda one: one.attention_output(0, 1, 3, 2) if family not in ATTN_NORMS else one.tokens(),
            "attn_out": lambda one: one.attention_output(0, 1, 3),
            "ffn_out": lambda one: one.ffn_out(1),
            "residual_in": lambda one: one.residual_in(1),
            "residual_out": lambda one: one.logits(),
            "residual_after_attn": lambda one: one.residual_after_attn(1),
        }[site.kind.value]
        require_close(read(llm), read(plain))
        assert not torch.equal(llm.residual_in(0), plain.residual_in(0))


@pytest.mark.parametrize("family", ["bloom", "gpt2", "granite", "falcon"])
def test_attention_is_edited_pattern_first_and_reads_say_so(family: str) -> None:
    """Also where what attention adds is known before its pattern is."""
    flat = torch.full((len(ROW),), 0.2)
    edits = [set_to(pattern(0, 1), flat, positions=[3, 5]), scale(attn_out(0), 2.0, positions=[3])]
    llm, one = edited(family, *edits), edited(family, edits[0])
    parts = llm.decomposed_attn(0, 0)
    bias = one.attention_output(0, 0, 5) - one.decomposed_attn(0, 0)[5].sum(dim=(0, 1))
    require_close(one.attention_output(0, 0, 3), one.decomposed_attn(0, 0)[3].sum(dim=(0, 1)) + bias)
    require_close(llm.attention_output(0, 0, 3), 2 * one.attention_output(0, 0, 3))
    require_close(parts[5].sum(dim=(0, 1)) + bias, llm.attention_output(0, 0, 5))
    require_close(llm.residual_after_attn(0)[0, 5], llm.residual_in(0)[0, 5] + llm.attention_output(0, 0, 5))
    require_close(llm.residual_out(0), llm.residual_after_attn(0) + llm.ffn_out(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_heads_of_a_layer_are_each_of_them(family: str) -> None:
    other = ran(family, OTHER)
    for site in (head, pattern):
        whole = edited(family, patch(site(0), other, positions=[2, 4]))
        each = edited(family, *(patch(site(0, n), other, positions=[2, 4]) for n in range(N_HEADS)))
        require_close(whole.logits(), each.logits())
        assert whole.effects()[0].selected == sum(effect.selected for effect in each.effects())
    d_head = other.bridged.layers[0].heads.d_head
    one = torch.zeros(N_HEADS, d_head)
    one[2] = 1.0
    whole = edited(family, add(head(0), one.flatten(), positions=[3]))
    assert torch.equal(whole.logits(), edited(family, add(head(0, 2), one[2], positions=[3])).logits())


def test_lenses_of_a_run_with_a_frozen_last_norm() -> None:
    """What leaves the last layer gives the logits with the scale that was frozen."""
    llm = edited("gpt2", freeze(final_norm_scale(), ran("gpt2", OTHER)))
    lens = llm.logit_lens(layers=[-1], normalize="frozen", with_kl=True, k=3)
    bias = llm.logits()[0] - _frozen_scores(llm)
    assert (bias - bias[0]).abs().max() < 1e-4  # that of the norm, the same everywhere
    own = llm.logit_lens(layers=[-1], with_kl=True)
    assert own.kl is not None
    assert lens.kl is not None
    wanted = llm.logits()[0].log_softmax(dim=-1)
    got = torch.stack([llm.unembed(one, normalize=True) for one in llm.residual_out(-1)[0]]).log_softmax(dim=-1)
    require_close(own.kl[0], (wanted.exp() * (wanted - got)).sum(dim=-1))


def _frozen_scores(llm: TransformerLensTransparentLlm) -> torch.Tensor:
    named = llm.logit_lens(layers=[-1], normalize="frozen", token_ids=range(500), k=500)
    scores = torch.empty(len(ROW), 500)
    return scores.scatter(1, named.ids[0], named.logits[0])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: zero(norm_scale(0, "attn")),
            InvalidRequestError,
            r"norm_scale\(0, 'attn'\) can be frozen and nothing",
        ),
        (lambda: zero(final_norm_scale()), InvalidRequestError, r"write freeze\(final_norm_scale\(\)\)"),
        (lambda: norm_scale(0, "before"), InvalidRequestError, "norm must be one of 'attn', 'ffn', 'attn_post'"),
        (lambda: edited("gpt2", freeze(norm_scale(0, "attn_post"))), NotSupportedError, "the layer has no norm there"),
        (lambda: edited("olmo2", freeze(norm_scale(0, "attn"))), NotSupportedError, "the layer has no norm there"),
    ],
)
def test_what_cannot_be_frozen_is_refused(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_the_run_that_is_frozen_to_is_made_once_and_is_no_current_run() -> None:
    llm = tiny().copy()
    with llm.edits(zero(head(0, 1))):
        llm.run_tokens([ROW], edits=[freeze(pattern(1)), freeze(ffn_out(1))])
    plain = ran("gpt2", ROW)
    assert torch.equal(llm.ffn_out(1), plain.ffn_out(1))
    assert torch.equal(llm.attention_matrix(0, 1, 0), plain.attention_matrix(0, 1, 0))
    assert len(llm.effects()) == 3
    assert llm.effects()[1].edit == "freeze pattern(1)"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "gptj", "olmo2", "mixtral"])
def test_what_is_frozen_to_what_it_has_changes_no_bit_in_other_types(family: str, dtype: torch.dtype) -> None:
    llm = TransformerLensTransparentLlm(
        family, hf_model=build_model(FAMILIES[family]()), tokenizer=build_tokenizer(), dtype=dtype
    )
    llm.run_tokens([ROW])
    plain = llm.logits()
    sites = [*all_norms(family), *(site(1) for site in (query, key, value, pattern, head, ffn_out, neurons))]
    llm.run_tokens([ROW], edits=[freeze(site) for site in sites])
    assert torch.equal(llm.logits(), plain)
    assert not any(effect.changed for effect in llm.effects())
