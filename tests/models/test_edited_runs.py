"""Runs that are changed on their way, beside plain Hugging Face models whose modules hooks of torch change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from support.models.families import D_MODEL, FAMILIES, N_HEADS, build_model
from support.servers.servers import tiny
from transparent_llm.errors import (
    IndexOutOfRangeError,
    InvalidRequestError,
    NotRunError,
    NotSupportedError,
    TooLargeError,
)
from transparent_llm.interventions import (
    Intervention,
    Site,
    add,
    attn_out,
    clamp,
    ffn_out,
    head,
    literal,
    mean,
    neuron_output,
    neurons,
    noise,
    patch,
    pattern,
    project,
    residual_after_attn,
    residual_in,
    residual_out,
    scale,
    set_to,
    swap,
    unembedding,
    value_of,
    zero,
)
from transparent_llm_server import TransformerLensTransparentLlm

ROW, OTHER = [1, 2, 3, 4, 5, 6, 7], [11, 12, 13, 14, 15, 16, 17]
TOLERANCE = 2e-4
V = torch.linspace(-1.5, 2, D_MODEL).sin()
W = torch.linspace(0, 3, D_MODEL).cos()
Change = Callable[[torch.Tensor], torch.Tensor]

EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss")
DENSE = [family for family in FAMILIES if family not in EXPERTS]
OUTPUTS = (
    *("attn.c_proj", "attn.attention.out_proj", "attention.dense", "attn.out_proj", "self_attn.out_proj"),
    *("self_attn.o_proj", "self_attn.dense", "self_attention.dense"),
)
DOWNS = ("mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc_out", "fc2", "mlp.down_proj", "mlp.fc2", "ffn.down_proj")
ATTN_NORMS = ("gemma2", "gemma3", "olmo2")
"""Families with a norm after each branch."""

PARALLEL = ("gpt_neox_parallel", "gptj", "phi", "falcon", "cohere")


def blocks(model: Any) -> Any:
    found = [module for _, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    return next(each for each in found if len(each) in (2, 3))


def part(block: Any, names: tuple[str, ...]) -> Any:
    held = dict(block.named_modules())
    return next(held[name] for name in names if name in held)


def hooked(family: str, place: Callable[[Any], tuple[Any, bool]], change: Change) -> torch.Tensor:
    """Logits [pos d_vocab] of the plain model, in which what a module is given, or gives, is changed."""
    model = build_model(FAMILIES[family]())
    module, at_input = place(blocks(model))

    def given(_: Any, args: Any, kwargs: Any) -> Any:
        return ((change(args[0]), *args[1:]), kwargs) if args else (args, _changed_first(kwargs, change))

    def gives(_: Any, args: Any, output: Any) -> Any:
        return change(output) if isinstance(output, torch.Tensor) else (change(output[0]), *output[1:])

    if at_input:
        module.register_forward_pre_hook(given, with_kwargs=True)
    else:
        module.register_forward_hook(gives)
    logits: torch.Tensor = model(torch.tensor([ROW]), use_cache=False).logits[0]
    return logits


def _changed_first(kwargs: dict[str, Any], change: Change) -> dict[str, Any]:
    return {**kwargs, "hidden_states": change(kwargs["hidden_states"])}


def edited(family: str, *edits: Intervention, rows: list[list[int]] | None = None) -> TransformerLensTransparentLlm:
    llm = tiny(family).copy()
    llm.run_tokens(rows or [ROW], edits=edits)
    return llm


def ran(family: str, *rows: list[int]) -> TransformerLensTransparentLlm:
    llm = tiny(family).copy()
    llm.run_tokens(list(rows))
    return llm


def require_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert (got - wanted).abs().max().item() <= TOLERANCE


def at(positions: list[int], change: Change) -> Change:
    def changed(x: torch.Tensor) -> torch.Tensor:
        shaped = x.clone().reshape(1, len(ROW), -1)
        shaped[0, positions] = change(shaped[0, positions])
        return shaped.reshape(x.shape)

    return changed


def unit(v: torch.Tensor) -> torch.Tensor:
    return v / v.norm()


OPERATIONS: dict[str, tuple[Callable[[Site], Intervention], Change]] = {
    "zero": (lambda site: zero(site, positions=[2, 4]), torch.zeros_like),
    "scale": (lambda site: scale(site, -1.5, positions=[2, 4]), lambda x: -1.5 * x),
    "add": (lambda site: add(site, V, 3.0, positions=[2, 4]), lambda x: x + 3 * V),
    "add, relative": (
        lambda site: add(site, V, 0.5, positions=[2, 4], relative=True),
        lambda x: x + 0.5 * x.norm(dim=-1, keepdim=True) * unit(V),
    ),
    "set": (lambda site: set_to(site, V, positions=[2, 4]), lambda x: V.expand_as(x)),
    "set each": (
        lambda site: set_to(site, torch.stack([V, W]), positions=[2, 4]),
        lambda _: torch.stack([V, W]),
    ),
    "project": (
        lambda site: project(site, V, 0.25, positions=[2, 4]),
        lambda x: x - 0.75 * (x @ unit(V))[:, None] * unit(V),
    ),
    "clamp": (
        lambda site: clamp(site, V, -0.1, 0.1, positions=[2, 4]),
        lambda x: x + ((x @ unit(V)).clamp(-0.1, 0.1) - x @ unit(V))[:, None] * unit(V),
    ),
    "swap": (
        lambda site: swap(site, V, W, positions=[2, 4]),
        lambda x: x + (x @ unit(V))[:, None] * (unit(W) - unit(V)),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "falcon"])
def test_each_operation_on_the_stream(family: str, name: str) -> None:
    make, change = OPERATIONS[name]
    wanted = hooked(family, lambda layers: (layers[1], True), at([2, 4], change))
    for site in (residual_in(1), residual_out(0)):
        require_close(edited(family, make(site)).logits()[0], wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stream_of_every_family(family: str) -> None:
    change = at([2, 4], lambda x: x + 3 * V)
    edit = OPERATIONS["add"][0]
    last = len(blocks(build_model(FAMILIES[family]()))) - 1
    require_close(
        edited(family, edit(residual_in(0))).logits()[0], hooked(family, lambda layers: (layers[0], True), change)
    )
    require_close(
        edited(family, edit(residual_out(-1))).logits()[0], hooked(family, lambda layers: (layers[last], False), change)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_of_every_family(family: str) -> None:
    def change(z: torch.Tensor) -> torch.Tensor:
        heads = z.clone().view(*z.shape[:-1], N_HEADS, -1)
        heads[..., 3, 2, :] *= -2  # [..., pos, head, d_head]
        return heads.view(z.shape)

    llm = edited(family, scale(head(0, 2), -2.0, positions=[3]))
    require_close(llm.logits()[0], hooked(family, lambda layers: (part(layers[0], OUTPUTS), True), change))
    plain = ran(family, ROW)
    if family not in ATTN_NORMS:  # there the norm's scale is another one too
        require_close(llm.attention_output(0, 0, 3, 2), -2 * plain.attention_output(0, 0, 3, 2))
    assert torch.equal(llm.attention_output(0, 0, 2, 2), plain.attention_output(0, 0, 2, 2))
    require_close(llm.decomposed_attn(0, 0)[3, :, 2].sum(dim=0), llm.attention_output(0, 0, 3, 2))


def test_an_edited_head_is_a_sum_over_sources_as_long_as_it_is_scaled() -> None:
    plain = ran("gpt2", ROW)
    llm = edited(
        "gpt2", scale(head(0, 2), -2.0, positions=[3, 4]), scale(head(0), 0.5, positions=[4]), zero(head(0, 1))
    )
    wanted = plain.decomposed_attn(0, 0).clone()
    wanted[[3, 4], :, 2] *= -2
    wanted[4] *= 0.5
    wanted[:, :, 1] = 0
    require_close(llm.decomposed_attn(0, 0), wanted)
    require_close(llm.source_attribution(0, 7, pos=4)["logit"].sum(), llm.attribution(7, pos=4)["heads"][0].sum())
    require_close(llm.value_weighted_norms(0)["norm"][2, 4], plain.value_weighted_norms(0)["norm"][2, 4])
    assert torch.equal(llm.attention_matrix(0, 0, 2), plain.attention_matrix(0, 0, 2))
    other = edited("gpt2", scale(head(0, 2), -2.0, positions=[3]), add(head(0, 2), V[:16], positions=[3]))
    with pytest.raises(NotSupportedError, match="has heads that were edited in this run by more than a factor"):
        other.decomposed_attn(0, 0)
    require_close(other.source_attribution(0, 7, pos=4)["logit"].sum(), other.attribution(7, pos=4)["heads"][0].sum())
    heads = other.attribution(7, pos=3)
    require_close(heads.sum(), heads["total"])
    with pytest.raises(NotSupportedError, match="no sum over sources"):
        other.source_attribution(0, 7, pos=3)


@pytest.mark.parametrize("family", DENSE)
def test_neurons_of_every_dense_family(family: str) -> None:
    def change(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x.view(len(ROW), -1)[2:4, [1, 5]] = 0.75
        return x

    llm = edited(family, set_to(neurons(1, [1, 5]), [0.75, 0.75], positions=[2, 3]))
    require_close(llm.logits()[0], hooked(family, lambda layers: (part(layers[1], DOWNS), True), change))
    assert llm.neuron_activations(0, 1, 3)[[1, 5]].tolist() == [0.75, 0.75]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_branch_adds_in_every_family(family: str) -> None:
    def attention(layers: Any) -> tuple[Any, bool]:
        block = layers[0]
        return (block.post_attention_layernorm if family in ATTN_NORMS else part(block, OUTPUTS)), False

    def feed_forward(layers: Any) -> tuple[Any, bool]:
        block = layers[0]
        if family in ATTN_NORMS:
            return block.post_feedforward_layernorm, False
        return (block.mlp if family in EXPERTS else part(block, DOWNS)), False

    for site, place in ((attn_out(0), attention), (ffn_out(0), feed_forward)):
        llm = edited(family, zero(site, positions=[2, 4]))
        require_close(llm.logits()[0], hooked(family, place, at([2, 4], torch.zeros_like)))
        read = llm.attention_output(0, 0, 4) if site == attn_out(0) else llm.ffn_out(0)[0, 4]
        assert not read.any()


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in PARALLEL])
def test_the_stream_between_the_branches(family: str) -> None:
    """What is put there is there; and what leaves the block is that and what the feed-forward part makes of it."""
    llm, plain = edited(family, set_to(residual_after_attn(0), V, positions=[2])), ran(family, ROW)
    require_close(llm.residual_after_attn(0)[0, 2], V)
    require_close(llm.residual_out(0)[0, 2], V + llm.ffn_out(0)[0, 2])
    assert torch.equal(llm.attention_output(0, 0, 2), plain.attention_output(0, 0, 2))
    moved = edited(family, set_to(residual_in(0), V - plain.attention_output(0, 0, 0), positions=[0]))
    assert not torch.equal(moved.ffn_out(0)[0, 0], plain.ffn_out(0)[0, 0])


@pytest.mark.parametrize("family", PARALLEL)
def test_blocks_without_a_stream_between_the_branches_say_so(family: str) -> None:
    with pytest.raises(
        NotSupportedError, match=r"residual_after_attn\(1\) cannot be edited: attention and feed-forward"
    ):
        edited(family, zero(residual_after_attn(1)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pattern_of_every_family(family: str) -> None:
    """Its row times a number is what the head mixes times that number, and a row of zeros mixes nothing."""
    for factor in (-2.0, 0.0):
        require_close(
            edited(family, scale(pattern(0, 2), factor, positions=[3])).logits(),
            edited(family, scale(head(0, 2), factor, positions=[3])).logits(),
        )


@pytest.mark.parametrize("family", ["gpt2", "llama_gqa", "mistral"])
def test_a_query_that_looks_at_one_source_only(family: str) -> None:
    one_hot = torch.zeros(len(ROW))
    one_hot[1] = 1
    llm = edited(family, set_to(pattern(1, 3), one_hot, positions=[5]))
    assert torch.equal(llm.attention_matrix(0, 1, 3)[5], one_hot)
    parts = llm.decomposed_attn(0, 1)[5, :, 3]
    assert parts[1].any()
    assert not parts[[0, 2, 3, 4, 5, 6]].any()
    seen = ran(family, ROW).decomposed_attn(0, 1)[1, 1, 3] / ran(family, ROW).attention_matrix(0, 1, 3)[1, 1]
    require_close(parts[1], seen)
    future = torch.ones(len(ROW))
    masked = edited(family, set_to(pattern(1, 3), future, positions=[2])).attention_matrix(0, 1, 3)[2]
    assert masked.tolist() == [1, 1, 1, 0, 0, 0, 0]


SITES: dict[str, Site] = {
    "stream": residual_in(1),
    "last stream": residual_out(-1),
    "between": residual_after_attn(1),
    "attention": attn_out(1),
    "feed-forward": ffn_out(0),
    "head": head(1, 2),
    "pattern": pattern(0, 1),
    "neurons": neurons(1),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_changes_nothing_changes_no_bit(family: str) -> None:
    rows = [ROW, [9, 8, 7]]
    plain = ran(family, *rows)
    for name, site in SITES.items():
        if name == "between" and family in PARALLEL:
            continue
        for edit in (scale(site, 1.0), patch(site, plain)):
            llm = edited(family, edit, rows=rows)
            assert torch.equal(llm.logits(), plain.logits()), name
            (effect,) = llm.effects()
            assert (effect.changed, effect.delta_norm, effect.max_delta) == (0, 0.0, 0.0)
            assert effect.selected > 0
            assert effect.norm > 0


@pytest.mark.parametrize("family", DENSE)
def test_the_whole_stream_of_another_run_gives_its_logits_to_the_bit(family: str) -> None:
    other = ran(family, OTHER)
    for site in (residual_in(0), residual_out(0), residual_out(-1)):
        assert torch.equal(edited(family, patch(site, other)).logits(), other.logits())


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_before_and_rows_beside_an_edit_keep_their_bits(family: str) -> None:
    rows, plain = [ROW, OTHER], ran(family, ROW, OTHER)
    for site in (residual_in(0), head(0, 1), pattern(0, 1)):
        llm = edited(family, noise(site, 1.0, 3, positions=[4], rows=[1]), rows=rows)
        got, was = llm.logits(), plain.logits()
        if family not in EXPERTS:  # whose products hang on how many tokens an expert has
            assert torch.equal(got[0], was[0])
            assert torch.equal(got[1, :4], was[1, :4])
        require_close(got[0], was[0])
        assert (got[1, 4:] - was[1, 4:]).abs().max() > TOLERANCE


def test_sources_within_the_model() -> None:
    llm, plain, other = tiny().copy(), ran("gpt2", ROW), ran("gpt2", OTHER)
    weights = llm.bridged._hf.lm_head.weight
    for vector, numbers in (
        (unembedding(5), weights[5]),
        (unembedding(5, 6), weights[5] - weights[6]),
        (neuron_output(1, 7), plain.neuron_output(1, 7)),
        (value_of(residual_out(0), other, pos=-1), other.residual_out(0)[0, -1]),
        (
            value_of(ffn_out(1), other, pos=2) - value_of(ffn_out(1), plain, pos=3),
            other.ffn_out(1)[0, 2] - plain.ffn_out(1)[0, 3],
        ),
        (literal(V), V),
    ):
        got = edited("gpt2", add(residual_in(1), vector, 2.0, positions="last")).residual_in(1)[0]
        require_close(got[-1], plain.residual_in(1)[0, -1] + 2 * numbers)
        assert torch.equal(got[:-1], plain.residual_in(1)[0, :-1])


def test_means_and_mapped_patches() -> None:
    other = ran("gpt2", OTHER, [21, 22, 23])
    stream = other.residual_in(1)
    got = edited("gpt2", mean(residual_in(1), other, positions=[3])).residual_in(1)[0, 3]
    require_close(got, torch.cat([stream[0], stream[1, :3]]).mean(dim=0))
    llm = edited(
        "gpt2",
        patch(residual_in(1), other, positions=[1, 5], rows=[0], source_positions=[-1, 0], source_rows=[1]),
    )
    assert torch.equal(llm.residual_in(1)[0, [1, 5]], stream[1, [2, 0]])


def test_edits_follow_the_order_of_sites_and_of_the_list() -> None:
    first, second = add(residual_out(0), V, positions=[2]), scale(residual_in(1), 2.0, positions=[2])
    plain = ran("gpt2", ROW).residual_in(1)[0, 2]
    require_close(edited("gpt2", first, second).residual_in(1)[0, 2], 2 * (plain + V))
    require_close(edited("gpt2", second, first).residual_in(1)[0, 2], 2 * plain + V)
    late, early = scale(residual_in(1), 3.0), zero(residual_in(0))
    assert torch.equal(edited("gpt2", late, early).logits(), edited("gpt2", early, late).logits())


def test_noise_hangs_on_its_seed_site_and_place_alone() -> None:
    def made(rows: list[list[int]], seed: int) -> torch.Tensor:
        edit = noise(residual_in(0), 0.5, seed, positions=[2], rows=[0])
        return edited("gpt2", edit, rows=rows).residual_in(0)[0, 2]

    one = made([ROW], 7)
    assert torch.equal(one, made([ROW, OTHER], 7))
    assert not torch.equal(one, made([ROW], 8))
    added = one - ran("gpt2", ROW).residual_in(0)[0, 2]
    assert 0.3 < added.std().item() < 0.7


def test_blocks_of_edits_hold_for_their_thread_and_can_be_nested() -> None:
    llm, wanted = tiny().copy(), edited("gpt2", zero(head(0, 1)), zero(head(0, 2)), zero(ffn_out(0))).logits()
    with llm.edits(zero(head(0, 1)), zero(head(0, 2))), llm.edits(zero(ffn_out(0))):
        llm.run_tokens([ROW])
        assert len(llm.effects()) == 3
    assert torch.equal(llm.logits(), wanted)
    llm.run_tokens([ROW])
    assert torch.equal(llm.logits(), ran("gpt2", ROW).logits())
    assert not llm.effects()


def test_effects_are_what_two_runs_differ_by() -> None:
    llm, plain = edited("gpt2", add(residual_out(0), V, 2.0, positions=[1, 3])), ran("gpt2", ROW)
    (effect,) = llm.effects()
    before, after = plain.residual_out(0)[0, [1, 3]], llm.residual_out(0)[0, [1, 3]]
    assert effect.selected == 2 * D_MODEL
    assert effect.changed == int((before != after).sum())
    assert effect.delta_norm == pytest.approx((after - before).norm().item(), rel=1e-5)
    assert effect.norm == pytest.approx(before.norm().item(), rel=1e-5)
    assert effect.relative == pytest.approx(effect.delta_norm / effect.norm)
    assert effect.max_delta == pytest.approx((after - before).abs().max().item(), rel=1e-5)
    assert effect.edit == "add residual_out(0) at [1, 3]"


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        (zero(residual_in(9)), IndexOutOfRangeError, "layer 9 is out of range: valid indices are 0 to 1"),
        (zero(head(0, 4)), IndexOutOfRangeError, "head 4 is out of range: valid indices are 0 to 3"),
        (zero(neurons(0, [500])), IndexOutOfRangeError, "neuron 500 is out of range: valid indices are 0 to 255"),
        (zero(head(0, 1), positions=[7]), IndexOutOfRangeError, "position 7 is out of range: valid indices are 0 to 6"),
        (zero(head(0, 1), rows=[1]), IndexOutOfRangeError, "row 1 is out of range: valid indices are 0 to 0"),
        (zero(neurons(0, [3, -253])), InvalidRequestError, "names a neuron twice"),
        (zero(head(0, 1), positions=[6, -1]), InvalidRequestError, "names a row or position twice"),
        (add(head(0, 1), V, positions=[1]), InvalidRequestError, r"a vector of shape \[64\] where 1 positions of 16"),
        (add(residual_in(0), unembedding(5000), positions=[1]), IndexOutOfRangeError, "token 5000 is out of range"),
        (project(residual_in(0), torch.zeros(64), positions=[1]), InvalidRequestError, "a direction has no length"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_numbers(
    edit: Intervention, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        edited("gpt2", edit)


def test_what_cannot_be_meant_is_refused_where_it_is_written() -> None:
    for make, words in (
        (lambda: zero(head(0, 1), positions="everywhere"), "positions is 'everywhere': it must be 'all' or 'last'"),
        (lambda: zero(head(0, 1), positions=[]), "positions is empty, so nothing would be changed"),
        (lambda: zero(3), "an edit is at a site such as residual_out"),
        (lambda: scale(residual_in(0), float("nan")), "factor must be a finite number, got float nan"),
        (lambda: add(residual_in(0), [1.0, float("inf")], positions=[0]), "elements that are not finite"),
        (lambda: clamp(residual_in(0), V, 2, 1, positions=[0]), "clamp between 2 and 1"),
        (lambda: noise(residual_in(0), -1, 0, positions=[0]), "sd is -1"),
        (lambda: neurons(0, []), "neurons is empty"),
        (lambda: tiny().copy().run_tokens([ROW], edits=zero(head(0, 1))), "edits is a list"),
        (lambda: tiny().copy().run_tokens([ROW], edits=["zero"]), "edits is a list of edits such as zero"),
    ):
        with pytest.raises(InvalidRequestError, match=words):
            make()  # type: ignore[no-untyped-call]


def test_many_places_are_counted_before_they_are_looked_at() -> None:
    edits = [zero(residual_in(0))] * 5000
    with pytest.raises(TooLargeError, match="select 320000 positions of rows together, at most 262144 can be edited"):
        edited("gpt2", *edits, rows=[list(range(1, 65))])


def test_words_of_an_edit_stay_short() -> None:
    edit = zero(neurons(0, range(200)), positions=range(500), rows=range(300))
    assert len(str(edit)) < 250
    assert "500 in all" in str(edit)


def test_a_source_is_a_run_of_the_same_model() -> None:
    with pytest.raises(InvalidRequestError, match="a run of another model"):
        edited("gpt2", patch(residual_in(0), ran("llama_gqa", ROW)))
    with pytest.raises(NotRunError):
        edited("gpt2", patch(residual_in(0), tiny().copy()))
    with pytest.raises(InvalidRequestError, match="an object of the same model with a current run"):
        edited("gpt2", patch(residual_in(0), object()))  # type: ignore[arg-type]


def activations(llm: TransformerLensTransparentLlm, pos: int) -> torch.Tensor:
    return llm.neuron_activations(0, 1, pos)


@pytest.mark.parametrize("family", EXPERTS)
def test_neurons_of_experts(family: str) -> None:
    """A neuron of one that was chosen, and one of one that was not, whose activation is 0 and need not stay so."""
    plain = ran(family, ROW)
    used, unused = (int((found != 0).float().argmax()) for found in (activations(plain, 3), activations(plain, 3) == 0))
    assert activations(plain, 3)[unused] == 0

    def change(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        for neuron, value in ((used, 0.75), (unused, -1.5)):
            more = value - activations(plain, 3)[neuron]
            x.view(1, len(ROW), -1)[0, 3] += more * plain.neuron_output(1, neuron)
        return x

    llm = edited(family, set_to(neurons(1, [used, unused]), [0.75, -1.5], positions=[3]))
    require_close(llm.logits()[0], hooked(family, lambda layers: (layers[1].mlp, False), change))
    assert activations(llm, 3)[[used, unused]].tolist() == [0.75, -1.5]
    assert torch.equal(activations(llm, 2), activations(plain, 2))
    parts, was = llm.decomposed_ffn_out(0, 1, 3), plain.decomposed_ffn_out(0, 1, 3)
    require_close(parts.sum(dim=0) - was.sum(dim=0), llm.ffn_out(1)[0, 3] - plain.ffn_out(1)[0, 3])
    require_close(parts[unused], -1.5 * plain.neuron_output(1, unused))
    both = edited(family, scale(neurons(1), 2.0, positions=[3]), scale(neurons(1, [used]), 0.25, positions=[3, 4]))
    require_close(activations(both, 3)[used], 0.5 * activations(plain, 3)[used])
    require_close(activations(both, 4)[used], 0.25 * activations(plain, 4)[used])
    assert both.attribution(7, pos=3)["ffn"][1] != plain.attribution(7, pos=3)["ffn"][1]


@pytest.mark.parametrize("family", EXPERTS)
def test_neurons_of_experts_from_other_runs(family: str) -> None:
    plain, other = ran(family, ROW), ran(family, OTHER)
    source = edited(family, scale(neurons(1), 3.0, positions=[2]))
    for edit, wanted in (
        (patch(neurons(1), other, positions=[2]), activations(other, 2)),
        (patch(neurons(1), source, positions=[2, 3]), 3 * activations(plain, 2)),
        (mean(neurons(1), other, positions=[2]), torch.stack([activations(other, n) for n in range(7)]).mean(dim=0)),
        (set_to(neurons(1), value_of(neurons(1), other, pos=4), positions=[2]), activations(other, 4)),
    ):
        require_close(activations(edited(family, edit), 2), wanted)
    llm = edited(family, zero(neurons(1)), zero(neurons(1), positions=[0]))
    assert not any(activations(llm, n).any() for n in range(7))
    with pytest.raises(IndexOutOfRangeError, match="neuron 500 is out of range: valid indices are 0 to "):
        edited(family, zero(neurons(0, [500])))


def test_neurons_of_experts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transparent_llm_server.models.interventions.experts.MOST_ACTIVATIONS", 384 * 5)
    with pytest.raises(TooLargeError, match="select 7 positions of 384 neurons in one layer: at most 5 positions"):
        edited("mixtral", zero(neurons(0)))
