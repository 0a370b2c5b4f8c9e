"""Gradients of runs with edits, and along paths, beside plain models with hooks, and beside differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from models.test_edited_runs import EXPERTS, OTHER, OUTPUTS, ROW, V, W, blocks, edited, part, ran
from models.test_frozen_runs import all_norms
from models.test_gradients import ROWS, pattern_of_all, require_close
from models.test_swept_runs import METRICS, by_hand
from support.models.families import FAMILIES, N_HEADS, build_model, build_tokenizer
from transparent_llm.analysis.differentiation import DIRECT, Differentiation, Path, SiteGradient
from transparent_llm.analysis.metrics import Metric
from transparent_llm.errors import InvalidRequestError, NotSupportedError, TooLargeError
from transparent_llm.interventions import (
    Intervention,
    Site,
    add,
    attn_out,
    clamp,
    ffn_out,
    freeze,
    head,
    key,
    mean,
    neurons,
    noise,
    patch,
    pattern,
    project,
    query,
    residual_after_attn,
    residual_in,
    residual_out,
    scale,
    set_to,
    swap,
    value,
    zero,
)
from transparent_llm_server import TransformerLensTransparentLlm

METRIC = Metric(5, 6)
UNIT, OTHER_UNIT = V / V.norm(), W / W.norm()
Change = Callable[[torch.Tensor], torch.Tensor]


def along(x: torch.Tensor) -> torch.Tensor:
    return (x * UNIT).sum(-1, keepdim=True)


def changes(other: TransformerLensTransparentLlm) -> list[tuple[Intervention, Change]]:
    """Edits of what enters layer 1, and the same by hand."""
    site, theirs = residual_in(1), other.residual_in(1)[0]
    everywhere: dict[str, Any] = {"positions": "all"}
    return [
        (scale(site, -1.5), lambda x: -1.5 * x),
        (add(site, V, 2.0, **everywhere), lambda x: x + 2 * V),
        (add(site, V, 0.5, relative=True, **everywhere), lambda x: x + 0.5 * x.norm(dim=-1, keepdim=True) * UNIT),
        (project(site, V, 0.25, **everywhere), lambda x: x - 0.75 * along(x) * UNIT),
        (clamp(site, V, -0.1, 0.2, **everywhere), lambda x: x + (along(x).clamp(-0.1, 0.2) - along(x)) * UNIT),
        (swap(site, V, W, **everywhere), lambda x: x - along(x) * UNIT + along(x) * OTHER_UNIT),
        (set_to(site, V, positions=[2, 4]), lambda x: x.index_copy(1, torch.tensor([2, 4]), V.expand(1, 2, -1))),
        (patch(site, other, positions=[1]), lambda x: x.index_copy(1, torch.tensor([1]), theirs[None, [1]])),
        (mean(site, other, positions=[3]), lambda x: x.index_copy(1, torch.tensor([3]), theirs.mean(0)[None, None])),
    ]


@pytest.mark.parametrize("family", ["gpt2", "llama_gqa", "gemma2"])
def test_gradients_go_through_what_edits_do_as_in_the_plain_model(family: str) -> None:
    """By what is before, at, and after an edit; and of a head that is scaled."""
    llm, model = ran(family, ROW), build_model(FAMILIES[family]())
    model.requires_grad_(False)
    held: dict[str, torch.Tensor] = {}
    change: Change = lambda x: x  # noqa: E731

    def hook(name: str, changed: Callable[[], Change]) -> Callable[..., Any]:
        def keep(_: Any, args: Any, kwargs: Any) -> Any:
            passed = changed()(args[0] if args else kwargs["hidden_states"])
            held[name] = passed if passed.requires_grad else passed.detach().requires_grad_()
            return ((held[name], *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": held[name]})

        return keep

    def scaled(z: torch.Tensor) -> torch.Tensor:
        factor = torch.ones(N_HEADS)
        factor[1] = -2
        return (z.unflatten(-1, (N_HEADS, -1)) * factor[:, None]).flatten(2)

    both = blocks(model)[:2]
    for name, module, changed in (
        ("in 0", both[0], lambda: lambda x: x),
        ("z 0", part(both[0], OUTPUTS), lambda: lambda z: z),
        ("in 1", both[1], lambda: change),
        ("z 1", part(both[1], OUTPUTS), lambda: scaled),
    ):
        module.register_forward_pre_hook(hook(name, changed), with_kwargs=True)
    sites = tuple(map(SiteGradient, (residual_in(0), head(0), residual_in(1), head(1))))
    for edit, change in changes(ran(family, OTHER)):  # noqa: B007 - a hook looks at it
        logits = model(torch.tensor([ROW]), use_cache=False).logits[0, -1].double()
        wanted = torch.autograd.grad(logits[5] - logits[6], list(held.values()))
        found = llm.gradients(Differentiation(METRIC, sites, edits=(edit, scale(head(1, 1), -2))))
        assert float(found.metric[0]) == pytest.approx(float((logits[5] - logits[6]).detach()), abs=1e-4)
        for got, want in zip(found.sites, wanted, strict=True):
            require_close(got[0].flatten(1), want[0], 2e-4)


def edits_of(llm: TransformerLensTransparentLlm, other: TransformerLensTransparentLlm, family: str) -> list[Any]:
    """Sets of edits at every kind of site."""
    d_head = llm.bridged.layers[0].heads.d_head
    v, every = torch.linspace(0.2, 3, d_head).cos(), {"positions": "all"}
    in_attention = [scale(query(1, 0), 1.3), scale(key(0, 0), 0.7)]
    in_attention += [clamp(value(1, 0), v, -0.05, 0.05, positions=[0, 1, 2]), scale(pattern(0, 1), 0.5)]
    in_attention += [scale(head(0, 1), -1.0), project(head(0), torch.ones(N_HEADS * d_head), 0.5, **every)]
    of_branches = [swap(attn_out(0), V, W, **every), scale(ffn_out(1), 0.5), noise(ffn_out(0), 0.1, 3, **every)]
    of_branches += [clamp(neurons(0, [1, 2, 3, 90]), torch.ones(4), -0.01, 0.01, **every)]
    of_branches += [project(residual_out(-1), W, 0.5, **every), scale(pattern(1), 0.9), scale(attn_out(1), 1.1)]
    if not llm.bridged.layers[0].is_parallel:
        of_branches += [project(residual_after_attn(0), V, **every), scale(residual_after_attn(1), 0.8, positions=[2])]
    frozen = [freeze(site, llm) for site in (*all_norms(family), pattern(0), ffn_out(1))]
    frozen += [scale(residual_in(0), 1.1), patch(head(1, 2), other, positions=[3])]
    return [in_attention, of_branches, frozen]


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "olmo2", "falcon", "llama_gqa"])
def test_gradients_are_differences_of_runs_with_one_edit_more(family: str) -> None:
    """In float64, what steps at a site do after the edits there, at every kind of site and edit."""
    llm = TransformerLensTransparentLlm(family, build_model(FAMILIES[family]()), build_tokenizer(), dtype=torch.float64)
    llm.run_tokens(ROWS)
    other, stepped = llm.copy(), llm.copy()
    other.run_tokens([OTHER, OTHER[:4]])
    pos, eps, tolerance = (2, 1e-4, 1e-6) if family in ("gpt2", "falcon") else (2, 0.004, 1e-3)
    sites = [residual_in(0), residual_in(1), attn_out(0), ffn_out(0), head(0), head(1, 2), pattern(0), pattern(1, 1)]
    sites += [query(1), key(0), value(1, 0), neurons(0)]
    if not llm.bridged.layers[0].is_parallel:
        sites += [residual_after_attn(0), residual_after_attn(1)]
    asked = tuple(map(SiteGradient, sites))
    for edits in edits_of(llm, other, family):
        found = [llm.gradients(Differentiation(metric, asked, edits=tuple(edits))).sites for metric in METRICS]
        for n, site in enumerate(sites):
            at_pos = [each[n][0].transpose(0, 1)[pos] if pattern_of_all(site) else each[n][0, pos] for each in found]
            v = torch.linspace(0.3, 5, at_pos[0].numel(), dtype=torch.float64).cos()
            wanted = torch.zeros(len(METRICS), dtype=torch.float64)
            for step, weight in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
                stepped.run_tokens(ROWS, edits=[*edits, add(site, v, step * eps, positions=[pos], rows=[0])])
                wanted += weight / eps * by_hand(stepped, llm, 0)
            got = torch.stack([(each.double().flatten() * v).sum() for each in at_pos])
            assert (got - wanted).abs().max() <= tolerance * max(1.0, float(wanted.abs().max())), (site, edits)


def test_what_stands_at_a_site_is_what_its_edits_left() -> None:
    """Also of some rows alone, in another order."""
    edits = (scale(head(0, 1), -2.0), project(residual_after_attn(1), V, positions="all", rows=[1]), zero(ffn_out(0)))
    for family in ("gpt2", "llama_gqa"):
        base, made = ran(family, *ROWS), edited(family, *edits, rows=ROWS)
        for site, read in (
            (residual_after_attn(1), made.residual_after_attn(1)),
            (residual_in(1), made.residual_in(1)),
        ):
            forms = (SiteGradient(site), SiteGradient(site, "times_activation"))
            gradient, times = base.gradients(Differentiation(METRIC, forms, (1, 0), edits=edits)).sites
            require_close(times, (gradient * read[[1, 0]]).sum(-1))


def test_what_is_set_or_frozen_is_a_constant() -> None:
    """Also to what it is anyway, which changes no number but the gradient."""
    llm = ran("gpt2", *ROWS)
    plain = llm.gradients(Differentiation(METRIC, (SiteGradient(residual_in(0)), SiteGradient(head(1)))))
    for constant in (freeze(residual_in(1)), zero(residual_in(1)), patch(residual_in(1), llm)):
        before, after = llm.gradients(
            Differentiation(METRIC, (SiteGradient(residual_in(0)), SiteGradient(head(1))), edits=(constant,))
        ).sites
        assert not before.any()
        assert after.any()
    patterns = (freeze(pattern(0)), freeze(pattern(1)))
    frozen = llm.gradients(Differentiation(METRIC, (SiteGradient(residual_in(0)),), frozen=("patterns",)))
    by_edits = llm.gradients(Differentiation(METRIC, (SiteGradient(residual_in(0)),), edits=patterns))
    require_close(by_edits.sites[0], frozen.sites[0])
    assert not torch.allclose(by_edits.sites[0], plain.sites[0], atol=1e-4)
    norms = tuple(map(freeze, all_norms("gpt2")))
    frozen = llm.gradients(Differentiation(METRIC, (SiteGradient(residual_in(0)),), frozen=("norm_scales",)))
    by_edits = llm.gradients(Differentiation(METRIC, (SiteGradient(residual_in(0)),), edits=norms))
    require_close(by_edits.sites[0], frozen.sites[0])
    both = Differentiation(METRIC, (SiteGradient(residual_in(0)),), frozen=DIRECT, edits=(*norms, *patterns))
    assert llm.gradients(both).sites[0].any()


def test_edits_that_have_no_gradient_are_refused() -> None:
    asked = Differentiation(METRIC, (SiteGradient(residual_in(0)),), edits=(zero(neurons(0, [1])),))
    with pytest.raises(NotSupportedError, match="neurons of experts pass as no tensor; edit ffn_out"):
        ran(EXPERTS[0], ROW).gradients(asked)
    with pytest.raises(InvalidRequestError, match="and give them to the gradients"):
        edited("gpt2", zero(head(0, 0))).gradients(Differentiation(METRIC, (SiteGradient(head(0)),)))
    with pytest.raises(TooLargeError, match="513 edits of one run"):
        Differentiation(METRIC, (SiteGradient(head(0)),), edits=(zero(head(0, 0)),) * 513)
    with pytest.raises(InvalidRequestError, match="no path at query"):
        Path(site=query(0))


@pytest.mark.parametrize("family", ["gpt2", "llama_gqa", "gemma2"])
@pytest.mark.parametrize("baseline", ["zero", "run"])
def test_integrated_gradients_at_a_site_are_those_by_hand(family: str, baseline: str) -> None:
    """By hooks of the plain model; and from another run they add up to what the metric gains. From zeros it is told how
    far they are from it."""
    llm, model = ran(family, ROW), build_model(FAMILIES[family]())
    model.requires_grad_(False)
    other = llm.copy()
    other.run_tokens([OTHER])
    block = blocks(model)[1]
    given: dict[str, Any] = {"put": None}

    def hook(_: Any, args: Any, kwargs: Any) -> Any:
        given["seen"] = args[0] if args else kwargs["hidden_states"]
        passed = given["seen"] if given["put"] is None else given["put"]
        return ((passed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": passed})

    def run(tokens: list[int], put: torch.Tensor | None) -> torch.Tensor:
        given["put"] = put
        last: torch.Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        return last[5] - last[6]

    for site, module in ((residual_in(1), block), (head(1), part(block, OUTPUTS)), (head(1, 2), part(block, OUTPUTS))):
        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        run(OTHER, None)
        start = given["seen"].clone() if baseline == "run" else torch.zeros_like(given["seen"])
        after = run(ROW, None)
        end = given["seen"].clone()
        if site.head is not None:
            d_head = end.shape[-1] // N_HEADS
            chosen = slice(site.head * d_head, (site.head + 1) * d_head)
            kept, start = start, end.clone()
            start[..., chosen] = kept[..., chosen]
        before, total = run(ROW, start), torch.zeros_like(end)
        for node, weight in zip(*np.polynomial.legendre.leggauss(30), strict=True):
            at = (start + (node + 1) / 2 * (end - start)).float().requires_grad_()
            total += weight / 2 * torch.autograd.grad(run(ROW, at), at)[0]
        handle.remove()
        wanted = ((end - start) * total)[0]
        wanted = wanted if site.head is None else wanted[:, chosen]
        path = Path("zero" if baseline == "zero" else other, 30, site)
        found = llm.gradients(Differentiation(METRIC, path=path))
        assert found.integrated is not None
        require_close(found.integrated.values[0].flatten(1), wanted, 1e-4)
        assert float(found.integrated.baseline_metric[0]) == pytest.approx(float(before), abs=1e-4)
        assert float(found.metric[0]) == pytest.approx(float(after), abs=1e-4)
        assert float(found.integrated.delta[0]) == pytest.approx(float(wanted.sum() - after + before), abs=1e-3)
        assert baseline == "zero" or abs(float(found.integrated.delta[0])) <= 1e-3


@pytest.mark.parametrize(
    "site", [residual_in(0), residual_in(1), residual_out(-1), attn_out(1), ffn_out(0), head(0, 1)]
)
def test_a_path_is_complete_at_every_site_and_with_edits(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run with edits it ends at what these left; and it is the same however many steps share a pass."""
    edits = (
        scale(residual_in(0), 1.2, rows=[0]),
        scale(site, 0.7),
        zero(head(1, 1), positions=[2]),
        scale(pattern(1, 0), 0.5),
    )
    made, llm = edited("gpt2", *edits, rows=ROWS), ran("gpt2", *ROWS)
    asked = Differentiation(METRIC, path=Path(9, 30, site), edits=edits)
    found = llm.gradients(asked)
    assert found.integrated is not None
    for row, tokens in enumerate(ROWS):
        last = made.logits()[row, len(tokens) - 1].double()
        assert float(found.metric[row]) == pytest.approx(float(last[5] - last[6]), abs=1e-4)
        assert not found.integrated.values[row, len(tokens) :].any()
    assert found.integrated.delta.abs().max() <= 1e-3
    assert found.integrated.values.abs().max() > 1e-3
    monkeypatch.setattr(
        "transparent_llm_server.models.differentiation.differentiated_run._POSITIONS_AT_ONCE", {"cpu": 1}
    )
    again = llm.gradients(asked)
    assert again.integrated is not None
    require_close(again.integrated.values, found.integrated.values, 1e-5)
