"""Queries, keys and values that are changed on their way, beside plain models in which the same is done to them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.test_edited_runs import ATTN_NORMS, OTHER, ROW, blocks, edited, ran, require_close
from support.models.families import FAMILIES, N_HEADS, build_model
from support.servers.servers import tiny
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError, TooLargeError
from transparent_llm.interventions import (
    Intervention,
    Site,
    add,
    freeze,
    head,
    key,
    mean,
    norm_scale,
    patch,
    pattern,
    query,
    residual_in,
    scale,
    set_to,
    value,
    value_of,
    zero,
)

Change = Callable[[torch.Tensor], torch.Tensor]
SITES: dict[str, Callable[..., Site]] = {"query": query, "key": key, "value": value}
MULTIPLIED = ("query", "key", "value")
AT = [2, 4]


def n_kv(family: str) -> int:
    return ran(family, ROW).bridged.layers[1].n_kv_heads


def plain_with(family: str, name: str, change: Change, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Logits [pos d_vocab] of the plain model, where a tensor [batch head pos d] of layer 1 is changed."""
    model: Any = build_model(FAMILIES[family]())
    attention = [one for one in blocks(model)[1].modules() if type(one).__name__.endswith("Attention")][-1]
    module, nth, of_layer = sys.modules[type(attention).__module__], MULTIPLIED.index(name), [0]

    def here(parts: Any, *, heads_last: bool = False) -> list[Any]:
        """With one changed, in the second layer that comes here."""
        found, at = list(parts), of_layer[0]
        of_layer[0] += 1
        if at == 1:
            turned = found[nth].transpose(1, 2) if heads_last else found[nth]
            made = change(turned)
            found[nth] = made.transpose(1, 2) if heads_last else made
        return found

    def before(function: Any, *, skip: int) -> Any:
        return lambda *args, **kwargs: function(*args[:skip], *here(args[skip : skip + 3]), *args[skip + 3 :], **kwargs)

    def after(function: Any, *, heads_last: bool = False) -> Any:
        return lambda *args, **kwargs: tuple(here(function(*args, **kwargs), heads_last=heads_last))

    if family == "falcon" and name == "value":
        monkeypatch.setattr(type(attention), "_split_heads", after(type(attention)._split_heads, heads_last=True))
    elif family == "falcon":
        monkeypatch.setattr(module, "apply_rotary_pos_emb", after(module.apply_rotary_pos_emb))
    elif family == "bloom":
        monkeypatch.setattr(type(attention), "_reshape", after(type(attention)._reshape))
    elif family == "mpt":

        def fused(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
            parts = [part.view(1, len(ROW), N_HEADS, -1) for part in output.chunk(3, dim=2)]
            of_layer[0] = 1
            return torch.cat([part.flatten(2) for part in here(parts, heads_last=True)], dim=2)

        attention.Wqkv.register_forward_hook(fused)
    elif hasattr(attention, "_attn"):
        monkeypatch.setattr(type(attention), "_attn", before(type(attention)._attn, skip=1))
    else:
        monkeypatch.setattr(module, "eager_attention_forward", before(module.eager_attention_forward, skip=1))
    logits: torch.Tensor = model(torch.tensor([ROW]), use_cache=False).logits[0]
    assert of_layer[0] >= 2
    monkeypatch.undo()
    return logits


def v_of(d: int) -> torch.Tensor:
    return torch.linspace(-1.5, 2, d).sin()


OPERATIONS: dict[str, tuple[Callable[[Site, int], Intervention], Change]] = {
    "zero": (lambda site, _: zero(site, positions=AT), torch.zeros_like),
    "scale": (lambda site, _: scale(site, -1.5, positions=AT), lambda x: -1.5 * x),
    "add": (lambda site, d: add(site, v_of(d), 3.0, positions=AT), lambda x: x + 3 * v_of(x.shape[-1])),
    "set": (lambda site, d: set_to(site, v_of(d), positions=AT), lambda x: v_of(x.shape[-1]).expand_as(x)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", MULTIPLIED)
@pytest.mark.parametrize("family", FAMILIES)
def test_as_in_the_plain_model(family: str, name: str, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ran(family, ROW)
    d_head = plain.bridged.layers[1].heads.d_head
    head = 3 if name == "query" else n_kv(family) - 1
    make, change = OPERATIONS[operation]

    def changed(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[0, head, AT] = change(x[0, head, AT])
        return x

    wanted = plain_with(family, name, changed, monkeypatch)
    llm = edited(family, make(SITES[name](1, head), d_head))
    require_close(llm.logits()[0], wanted)
    assert llm.effects()[0].selected == 2 * d_head
    assert torch.equal(llm.residual_in(1), plain.residual_in(1))
    if operation != "scale" or name != "key":
        assert (llm.logits() - plain.logits()).abs().max() > 1e-4
    if name == "value":
        assert torch.equal(llm.attention_matrix(0, 1, 3), plain.attention_matrix(0, 1, 3))
    bias = plain.attention_output(0, 1, 4) - plain.decomposed_attn(0, 1)[4].sum(dim=(0, 1))
    if family not in ATTN_NORMS:
        require_close(llm.attention_output(0, 1, 4), llm.decomposed_attn(0, 1)[4].sum(dim=(0, 1)) + bias)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_changes_nothing_changes_no_bit(family: str) -> None:
    rows = [ROW, [9, 8, 7]]
    plain = ran(family, *rows)
    for layer in (0, 1):
        for site in SITES.values():
            for place in (site(layer), site(layer, 0), site(layer, -1)):
                for edit in (scale(place, 1.0), patch(place, plain), freeze(place)):
                    llm = edited(family, edit, rows=rows)
                    assert torch.equal(llm.logits(), plain.logits()), place
                    assert llm.effects()[0].changed == 0
                    assert llm.effects()[0].selected > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_keys_and_values_of_another_run_give_its_attention(family: str) -> None:
    """To the bit: the heads mix what they mixed there."""
    other = ran(family, OTHER)
    llm = edited(family, *(patch(site(1), other) for site in SITES.values()))
    for n in range(N_HEADS):
        assert torch.equal(llm.attention_matrix(0, 1, n), other.attention_matrix(0, 1, n))
    if family not in ATTN_NORMS:
        assert torch.equal(llm.decomposed_attn(0, 1), other.decomposed_attn(0, 1))
    patterns = edited(family, patch(query(1), other), patch(key(1), other))
    require_close(patterns.logits(), edited(family, patch(pattern(1), other)).logits())


@pytest.mark.parametrize("family", ["gpt2", "llama_gqa", "gemma2", "falcon", "bloom", "cohere", "gpt_oss"])
def test_what_a_run_had_is_what_its_edits_left(family: str) -> None:
    """Sources whose queries, keys, stream or norm were edited themselves."""
    d_head = ran(family, ROW).bridged.layers[1].heads.d_head
    plain, other = ran(family, ROW), ran(family, OTHER)
    for edit in (
        set_to(query(1, 2), v_of(d_head), positions=[3]),
        set_to(key(1, -1), v_of(d_head), positions=[3]),
        patch(residual_in(1), other, positions=[3]),
        patch(value(0), other),
        freeze(norm_scale(1, "attn"), other),
        patch(query(0), other),
    ):
        source = edited(family, edit)
        llm = edited(family, patch(query(1), source), patch(key(1), source), patch(value(1), source))
        for n in range(N_HEADS):
            assert torch.equal(llm.attention_matrix(0, 1, n), source.attention_matrix(0, 1, n)), edit
    source = edited(family, set_to(query(1, 2), v_of(d_head), positions=[3]))
    llm = edited(family, set_to(query(1, 0), value_of(query(1, 2), source, pos=3), positions=[5]))
    assert torch.equal(
        llm.attention_matrix(0, 1, 0),
        edited(family, set_to(query(1, 0), v_of(d_head), positions=[5])).attention_matrix(0, 1, 0),
    )
    difference = value_of(key(1, 0), other, pos=2) - value_of(key(1, 0), plain, pos=2)
    require_close(
        edited(family, add(key(1, 0), difference, positions=[2])).logits(),
        edited(family, patch(key(1, 0), other, positions=[2])).logits(),
    )
    kept = edited(family, mean(value(1, 0), other, positions=[1]), set_to(value(1, 0), v_of(d_head), positions=[2]))
    assert kept.effects()[1].changed > 0


def test_all_come_before_the_pattern_and_the_head() -> None:
    edits = [scale(head(1, 2), 2.0), scale(pattern(1, 2), 0.5), zero(query(1, 2)), scale(value(1, 2), 3.0)]
    llm = edited("gpt2", *edits)
    n = torch.arange(1, len(ROW) + 1, dtype=torch.float32)
    require_close(llm.attention_matrix(0, 1, 2), torch.tril(0.5 / n[:, None].expand(-1, len(ROW))))
    plain = ran("gpt2", ROW)
    seen = plain.decomposed_attn(0, 1)[-1, :, 2] / plain.attention_matrix(0, 1, 2)[-1, :, None]
    require_close(llm.attention_output(0, 1, -1, 2), 3 * seen.mean(dim=0))


def test_heads_that_are_not_there_are_refused_with_the_numbers() -> None:
    for site in (key, value):
        with pytest.raises(IndexOutOfRangeError, match=r"that 4 query heads share\) 3 is out of range"):
            edited("llama_gqa", zero(site(0, 3)))
        with pytest.raises(IndexOutOfRangeError, match="valid indices are 0 to 3"):
            edited("gpt2", zero(site(0, 4)))
    with pytest.raises(IndexOutOfRangeError, match="head 4 is out of range: valid indices are 0 to 3"):
        edited("llama_gqa", zero(query(0, 4)))
    with pytest.raises(InvalidRequestError, match=r"a vector of shape \[64\] where 1 positions of 32 elements"):
        edited("llama_gqa", add(key(0), torch.ones(64), positions=[1]))


def test_attention_that_makes_its_scores_in_another_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no product of queries and keys, or mixes something else than the pattern that it shows."""
    from transformers.models.gpt2 import modeling_gpt2

    plain = modeling_gpt2.eager_attention_forward

    def by_einsum(_: Any, query: Any, key: Any, value: Any, mask: Any, **__: Any) -> Any:
        scores = torch.einsum("bhqd,bhkd->bhqk", query, key) / query.shape[-1] ** 0.5
        pattern = (scores if mask is None else scores + mask).softmax(dim=-1)
        return torch.matmul(pattern, value).transpose(1, 2), pattern

    def doubled(module: Any, query: Any, key: Any, value: Any, mask: Any, **others: Any) -> Any:
        mixed, pattern = plain(module, query, key, value, mask, **others)
        return mixed, pattern * 2

    llm = tiny().copy()
    for way, words in (
        (by_einsum, "attention has 1 products where there should be two"),
        (doubled, "multiplies values with something else than its pattern"),
    ):
        monkeypatch.setattr(modeling_gpt2, "eager_attention_forward", way)
        with pytest.raises(NotSupportedError, match=f"queries and keys of layer 1 cannot be edited: .*{words}"):
            llm.run_tokens([ROW], edits=[zero(query(1, 0))])


def test_runs_that_queries_are_taken_from_are_bounded() -> None:
    others = [ran("gpt2", OTHER) for _ in range(17)]
    with pytest.raises(TooLargeError, match="take queries and keys from 17 runs, at most 16 can be computed"):
        edited("gpt2", *(patch(key(0, 1), other) for other in others))
    assert edited("gpt2", *(patch(value(0, 1), other) for other in others)).effects()[0].changed > 0
