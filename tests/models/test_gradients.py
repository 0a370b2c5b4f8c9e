"""Gradients beside plain Hugging Face with hooks, beside finite differences of edited runs, captum and attribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import LayerIntegratedGradients

from models.test_edited_runs import DENSE, DOWNS, EXPERTS, OUTPUTS, PARALLEL, ROW, blocks, part, ran
from models.test_frozen_runs import V as ADDED
from models.test_frozen_runs import added_at_head
from models.test_swept_runs import METRICS, by_hand
from support.models.families import D_MODEL, FAMILIES, N_HEADS, build_model, build_tokenizer
from transparent_llm.analysis.differentiation import DIRECT, Differentiation, Path, SiteGradient
from transparent_llm.analysis.metrics import Metric, entropy, kl, loss, projection
from transparent_llm.errors import (
    IndexOutOfRangeError,
    InvalidRequestError,
    NotFoundError,
    NotSupportedError,
    TooLargeError,
)
from transparent_llm.interventions import (
    Site,
    add,
    attn_out,
    ffn_out,
    head,
    key,
    neurons,
    norm_scale,
    pattern,
    query,
    residual_after_attn,
    residual_in,
    residual_out,
    value,
    zero,
)
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.differentiation import differentiated_run, graph
from transparent_llm_server.models.forward.cancellation import AbandonedError, cancellable

SHORT = [11, 12, 13, 14]
ROWS = [ROW, SHORT]
OTHER = [[21, 22, 23, 24, 25, 26, 27], [31, 32, 33, 34]]
SOME = ("gpt2", "llama_gqa", "gemma2", "gpt_neox_parallel", "granite", "bloom", "mixtral", "qwen3_moe", "gpt_oss")


def gradients(llm: TransformerLensTransparentLlm, metric: Metric, *sites: Site, **more: Any) -> list[torch.Tensor]:
    found = llm.gradients(Differentiation(metric, tuple(map(SiteGradient, sites)), **more))
    return [*found.sites]


def require_close(got: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert got.shape == wanted.shape
    size = float(wanted.abs().max())
    assert size > 1e-6
    assert float((got - wanted).abs().max()) <= tolerance * max(0.01, size)


def of_logits(logits: torch.Tensor, tokens: torch.Tensor) -> list[tuple[Metric, torch.Tensor]]:
    """Metrics, and what each is of a row's logits [pos d_vocab]."""
    logprobs = logits.log_softmax(-1)
    return [
        (Metric(5, 6), logits[-1, 5] - logits[-1, 6]),
        (Metric(5, pos=1, measure="prob"), logprobs[1, 5].exp()),
        (loss(), -logprobs[:-1].gather(1, tokens[1:, None]).mean()),
        (entropy(), -(logprobs[-1].exp() * logprobs[-1]).sum()),
    ]


@pytest.mark.parametrize("family", SOME)
def test_gradients_are_those_of_the_plain_model(family: str) -> None:
    """Of what enters blocks, the output weights of attention, and of the feed-forward part."""
    llm, model = ran(family, *ROWS), build_model(FAMILIES[family]())
    held: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Callable[..., Any]:
        def keep(_: Any, args: Any, kwargs: Any) -> Any:
            passed = args[0] if args else kwargs["hidden_states"]
            passed = passed if passed.requires_grad else passed.detach().requires_grad_()
            held[name] = passed
            return ((passed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": passed})

        return keep

    sites = {"in 0": residual_in(0), "in 1": residual_out(0)}
    model.requires_grad_(False)
    for layer, block in enumerate(blocks(model)[:2]):
        block.register_forward_pre_hook(hook(f"in {layer}"), with_kwargs=True)
        part(block, OUTPUTS).register_forward_pre_hook(hook(f"z {layer}"), with_kwargs=True)
        sites[f"z {layer}"] = head(layer)
        if family in DENSE:
            part(block, DOWNS).register_forward_pre_hook(hook(f"neurons {layer}"), with_kwargs=True)
            sites[f"neurons {layer}"] = neurons(layer)
    for n, row in enumerate(ROWS):
        logits = model(torch.tensor([row]), use_cache=False).logits[0].double()
        for metric, number in of_logits(logits, torch.tensor(row)):
            wanted = torch.autograd.grad(number, [held[name] for name in sites], retain_graph=True)
            found = llm.gradients(Differentiation(metric, tuple(map(SiteGradient, sites.values()))))
            assert float(found.metric[n]) == pytest.approx(float(number.detach()), abs=1e-4)
            for got, want in zip(found.sites, wanted, strict=True):
                require_close(got[n, : len(row)].flatten(1), want.reshape(len(row), -1))
                assert not got[n, len(row) :].any()


def sites_of(llm: TransformerLensTransparentLlm) -> list[Site]:
    found = [residual_in(0), residual_in(1), residual_out(-1), attn_out(0), ffn_out(0), head(0), head(1, 2)]
    found += [pattern(0), pattern(1, 1), query(0), query(1, 3), key(0), value(0), value(1, 0), neurons(0)]
    found += [neurons(1, [3, 90])]
    return found if llm.bridged.layers[0].is_parallel else [*found, residual_after_attn(0)]


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "falcon", "llama_gqa"])
def test_gradients_are_finite_differences_of_edited_runs(family: str) -> None:
    """In float64, at every kind of site: what steps along a direction do, both ways, to each metric. Norms that divide
    by the size of the stream do so in float32 all the same, which allows no steps as small."""
    llm = TransformerLensTransparentLlm(family, build_model(FAMILIES[family]()), build_tokenizer(), dtype=torch.float64)
    llm.run_tokens(ROWS)
    pos, eps, tolerance = (2, 1e-4, 1e-6) if family in ("gpt2", "falcon") else (2, 0.004, 1e-3)
    stepped = llm.copy()
    sites = sites_of(llm)
    found = [gradients(llm, metric, *sites) for metric in METRICS]
    for n, site in enumerate(sites):
        at_pos = [each[n][0].transpose(0, 1)[pos] if pattern_of_all(site) else each[n][0, pos] for each in found]
        v = torch.linspace(0.3, 5, at_pos[0].numel(), dtype=torch.float64).cos()
        wanted = torch.zeros(len(METRICS), dtype=torch.float64)
        for step, weight in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
            stepped.run_tokens(ROWS, edits=[add(site, v, step * eps, positions=[pos], rows=[0])])
            wanted += weight / eps * by_hand(stepped, llm, 0)
        got = torch.stack([(each.double().flatten() * v).sum() for each in at_pos])
        assert (got - wanted).abs().max() <= tolerance * max(1.0, float(wanted.abs().max())), site
        assert wanted.abs().max() > 1e-3, site


def pattern_of_all(site: Site) -> bool:
    return site.kind.value == "pattern" and site.head is None


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "olmo2", "gpt_neox_parallel", "falcon", "granite", "qwen3_moe"])
def test_a_frozen_gradient_times_a_head_is_its_attribution(family: str) -> None:
    llm = ran(family, *ROWS)
    sites = [SiteGradient(head(layer), "times_activation") for layer in range(llm.model_info().n_layers)]
    found = llm.gradients(Differentiation(Metric(7, 8, pos=3), tuple(sites), frozen=DIRECT))
    for row in range(len(ROWS)):
        cap = llm.bridged.text_config.final_logit_softcapping if family == "gemma2" else None
        got = torch.stack([tensor[row, 3] for tensor in found.sites])
        if cap is None:
            require_close(got, llm.attribution(7, 8, batch_i=row, pos=3)["heads"], 1e-5)
            continue
        slopes = [1 - (float(llm.logits()[row, 3, token]) / cap) ** 2 for token in (7, 8)]
        terms = [llm.attribution(token, batch_i=row, pos=3)["heads"] for token in (7, 8)]
        require_close(got, terms[0] * slopes[0] - terms[1] * slopes[1], 1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "olmo2", "gpt_neox_parallel", "cohere", "mixtral"])
def test_a_gradient_with_frozen_parts_is_exact_where_the_plain_model_has_them_frozen(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is linear, but for a cap of logits, so that any step is as good as a small one."""
    wanted = added_at_head(family, monkeypatch)
    llm = ran(family, ROW)
    v = ADDED if llm.bridged.layers[0].heads.d_head == len(ADDED) else torch.cat([ADDED, ADDED])
    frozen = ("patterns", "norm_scales", "neurons")
    tokens = (7,) if family == "gemma2" else (3, 7, 11)
    for token in tokens:
        (found,) = gradients(llm, Metric(token, pos=4), head(0, 1), frozen=frozen)
        got = float((found[0, [2, 4]] @ v).sum())
        if family == "gemma2":  # capped: to first order
            assert got == pytest.approx(float(wanted[4, token]), rel=0.1)
        else:
            assert got == pytest.approx(float(wanted[4, token]), abs=1e-5)


@pytest.mark.parametrize("baseline", ["token", "run"])
def test_integrated_gradients_are_those_of_captum(baseline: str) -> None:
    llm, model = ran("gpt2", *ROWS), build_model(FAMILIES["gpt2"]())
    other = llm.copy()
    other.run_tokens(OTHER)
    path = Path(9, 20) if baseline == "token" else Path(other, 20)
    found = llm.gradients(Differentiation(Metric(5, 6), path=path))
    assert found.integrated is not None

    def forward(ids: torch.Tensor) -> torch.Tensor:
        last = model(ids, use_cache=False).logits[:, -1]
        return last[:, 5] - last[:, 6]

    theirs = LayerIntegratedGradients(forward, model.transformer.drop)
    for n, row in enumerate(ROWS):
        ids = torch.tensor([row])
        start = torch.full_like(ids, 9) if baseline == "token" else torch.tensor([OTHER[n]])
        wanted, delta = theirs.attribute(ids, start, n_steps=20, return_convergence_delta=True)
        require_close(found.integrated.values[n, : len(row)], wanted[0].float(), 1e-5)
        assert float(found.integrated.delta[n]) == pytest.approx(float(delta), abs=1e-5)
        assert not found.integrated.values[n, len(row) :].any()


def test_integrated_gradients_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """The more steps the better; and however many share a pass."""
    llm = ran("llama_gqa", *ROWS)
    deltas = []
    for steps in (2, 8, 100):
        found = llm.gradients(Differentiation(loss(), path=Path(3, steps)))
        assert found.integrated is not None
        total = found.integrated.values.double().sum(dim=(1, 2))
        deltas.append((total - (found.metric - found.integrated.baseline_metric)).abs().max())
        assert torch.allclose(total - found.metric + found.integrated.baseline_metric, found.integrated.delta)
    assert deltas[0] > deltas[1] > deltas[2]
    assert deltas[2] <= 1e-5
    monkeypatch.setattr(differentiated_run, "_POSITIONS_AT_ONCE", {"cpu": 1})
    again = llm.gradients(Differentiation(loss(), path=Path(3, 8)))
    monkeypatch.undo()
    wanted = llm.gradients(Differentiation(loss(), path=Path(3, 8)))
    assert again.integrated is not None
    assert wanted.integrated is not None
    require_close(again.integrated.values, wanted.integrated.values, 1e-5)
    zeros = llm.gradients(Differentiation(Metric(5), path=Path("zero", 8), rows=(1,)))
    assert zeros.integrated is not None
    assert float(zeros.integrated.baseline_metric) == pytest.approx(float(zeros_metric()), abs=1e-4)


def zeros_metric() -> torch.Tensor:
    """Of the plain model that is given zeros for its embedding."""
    model = build_model(FAMILIES["llama_gqa"]())
    logits: torch.Tensor = model(inputs_embeds=torch.zeros(1, len(SHORT), D_MODEL), use_cache=False).logits
    return logits[0, -1, 5]


def test_forms_are_made_of_the_gradient_and_of_what_stands_there() -> None:
    llm = ran("llama_gqa", *ROWS)
    other = llm.copy()
    other.run_tokens([OTHER[1], OTHER[0]])
    for site in (
        residual_in(1),
        residual_after_attn(1),
        head(0),
        head(1, 2),
        neurons(0),
        pattern(0),
        value(1),
        query(0),
    ):
        (gradient,) = gradients(llm, Metric(5, 6), site)
        sums = site.kind.value not in ("neurons", "pattern")

        def asked(form: Any, source: Any = None, site: Site = site) -> torch.Tensor:
            rows = () if source is None else (1, 0)
            return llm.gradients(Differentiation(Metric(5, 6), (SiteGradient(site, form, source, rows),))).sites[0]

        norm = gradient.norm(dim=-1) if sums else gradient.abs()
        require_close(asked("norm"), norm, 1e-6)
        times, difference = asked("times_activation"), asked("times_difference", other)
        assert times.shape == difference.shape == norm.shape
        if site.kind.value.startswith("residual"):
            read = {"residual_in": llm.residual_in, "residual_after_attn": llm.residual_after_attn}[site.kind.value]
            theirs = {"residual_in": other.residual_in, "residual_after_attn": other.residual_after_attn}
            moved = theirs[site.kind.value](1)[[1, 0]] - read(1)
            require_close(times, (gradient * read(1)).sum(-1))
            require_close(difference, (gradient * moved).sum(-1))
        if site == pattern(0):
            for n in range(N_HEADS):
                require_close(times[0, n], gradient[0, n] * llm.attention_matrix(0, 0, n))
                moved = other.attention_matrix(1, 0, n) - llm.attention_matrix(0, 0, n)
                require_close(difference[0, n], gradient[0, n] * moved)


def test_what_a_metric_does_not_depend_on_has_no_gradient() -> None:
    llm = ran("gpt2", *ROWS)
    metric = projection(residual_in(1), torch.ones(D_MODEL), pos=1)
    before, after, later = gradients(llm, metric, residual_in(0), residual_in(1), ffn_out(1))
    assert before[:, :2].abs().amax(dim=(1, 2)).gt(0).all()
    assert not before[:, 2:].any()
    require_close(after[:, 1], torch.full((2, D_MODEL), D_MODEL**-0.5))
    assert not later.any()
    (base,) = gradients(llm, kl(), residual_in(0))
    assert base.abs().max() <= 1e-5  # the least that it can be


def test_one_pass_begins_where_the_lowest_site_is(monkeypatch: pytest.MonkeyPatch) -> None:
    llm, seen = ran("gpt2", *ROWS), []
    passed = graph.Graph.passed

    def watched(self: Any, wanted: Any, start: int, *more: Any) -> Any:
        seen.append((len(wanted), start))
        return passed(self, wanted, start, *more)

    monkeypatch.setattr(graph.Graph, "passed", watched)
    both = gradients(llm, Metric(5), ffn_out(1), head(1))
    whole = gradients(llm, Metric(5), ffn_out(1), head(1), residual_in(0))
    assert seen == [(2, 1), (3, 0)]
    for one, other in zip(both, whole, strict=False):
        require_close(one, other, 1e-5)
    assert not torch.is_grad_enabled() or not any(p.requires_grad for p in llm.bridged._hf.parameters())
    assert not llm.residual_in(0).requires_grad


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral"])
def test_the_graph_takes_no_more_than_is_costed(family: str) -> None:
    row = [n % 90 + 1 for n in range(50)]
    llm = ran(family, row)
    asked = Differentiation(loss(), (SiteGradient(residual_in(0)),))
    costed = llm.differentiated(asked).graph_bytes
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter) and not is_weight(llm, tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        llm.gradients(asked)
    taken = sum(storages.values())
    assert taken <= costed <= 8 * taken


def is_weight(llm: TransformerLensTransparentLlm, tensor: torch.Tensor) -> bool:
    place = tensor.untyped_storage().data_ptr()
    return any(place == weight.untyped_storage().data_ptr() for weight in llm.bridged._hf.parameters())


def test_it_stops_on_the_way_there_and_back() -> None:
    llm, asked = ran("gpt2", *ROWS), Differentiation(Metric(5), (SiteGradient(residual_in(0)),))
    times = []

    def goes_on() -> bool:
        times.append(torch.is_grad_enabled())
        return len(times) < most

    most = 10**6
    with cancellable(goes_on):
        llm.gradients(asked)
    whole = len(times)
    assert times[-1] is False  # on the way back
    for most in (1, whole):  # noqa: B007 - `goes_on` looks at it
        times.clear()
        with cancellable(goes_on), pytest.raises(AbandonedError):
            llm.gradients(asked)
    assert gradients(llm, Metric(5), residual_in(0))[0].any()


def test_what_cannot_be_done_is_refused() -> None:
    llm = ran("gpt2", *ROWS)
    with pytest.raises(NotSupportedError, match="attention and feed-forward part read the same stream"):
        gradients(ran(PARALLEL[0], ROW), Metric(5), residual_after_attn(0))
    with pytest.raises(NotSupportedError, match="neurons of experts pass as no tensor"):
        gradients(ran(EXPERTS[0], ROW), Metric(5), neurons(0))
    for site, words in ((residual_in(2), "layer 2"), (head(0, 4), "head 4"), (neurons(0, [999]), "neuron 999")):
        with pytest.raises(IndexOutOfRangeError, match=words):
            gradients(llm, Metric(5), site)
    with pytest.raises(InvalidRequestError, match="no gradient by norm_scale"):
        SiteGradient(norm_scale(0, "attn"))
    with pytest.raises(InvalidRequestError, match="give one of them"):
        Differentiation(Metric(5))
    with pytest.raises(InvalidRequestError, match="needs a source"):
        SiteGradient(head(0), "times_difference")
    with pytest.raises(InvalidRequestError, match="names a part twice"):
        Differentiation(Metric(5), path=Path(), frozen=("patterns", "patterns"))
    with pytest.raises(InvalidRequestError, match="1 to 1000 steps, got 1001"):
        Path(steps=1001)
    with pytest.raises(TooLargeError, match="by 4097 sites"):
        Differentiation(Metric(5), (SiteGradient(head(0)),) * 4097)
    with pytest.raises(IndexOutOfRangeError, match="token 500"):
        llm.gradients(Differentiation(Metric(5), path=Path(500)))
    other = llm.copy()
    other.run_tokens([ROW])
    with pytest.raises(InvalidRequestError, match="name source_rows"):
        llm.gradients(Differentiation(Metric(5), (SiteGradient(head(0), "times_difference", other, (0, 0)),)))
    with pytest.raises(InvalidRequestError, match="the run that is the baseline"):
        llm.gradients(Differentiation(Metric(5), path=Path(other)))
    other.run_tokens([ROW], edits=[zero(head(0, 0))])
    with pytest.raises(InvalidRequestError, match="edited is not differentiated"):
        gradients(other, Metric(5), head(0))
    long = ran("phi3_longrope", [n + 1 for n in range(20)], ROW)
    with pytest.raises(InvalidRequestError, match="passes of their own"):
        gradients(long, Metric(5), head(0))
    assert gradients(long, Metric(5), head(0), rows=(0,))[0].any()


def test_what_has_no_gradient_or_none_that_is_finite_is_told() -> None:
    model = build_model(FAMILIES["gpt2"]())
    llm = TransformerLensTransparentLlm("gpt2", model, build_tokenizer())
    with torch.no_grad():
        model.get_output_embeddings().weight[400] = torch.inf
    llm.run_tokens([ROW])
    with pytest.raises(NotSupportedError, match=r"by residual_out\(1\) is not finite in torch.float32"):
        gradients(llm, Metric(400), residual_out(-1))
    with pytest.raises(NotSupportedError, match="along this path is not finite"):
        llm.gradients(Differentiation(Metric(400), path=Path(3, 2)))
    assert gradients(llm, Metric(5), residual_out(-1))[0].isfinite().all()
    with torch.no_grad():
        model.get_output_embeddings().weight[5] += 1
    with pytest.raises(NotFoundError, match="weights were changed"):
        gradients(llm, Metric(5), residual_out(-1))
    llm._quantization = "torchao-int8"
    with pytest.raises(NotSupportedError, match="quantised"):
        gradients(llm, Metric(5), head(0))


def test_differences_are_with_few_runs() -> None:
    llm = ran("gpt2", *ROWS)
    others = [ran("gpt2", *OTHER) for _ in range(17)]
    asked = [SiteGradient(query(0), "times_difference", other) for other in others]
    assert len(llm.gradients(Differentiation(Metric(5), tuple(asked[:16]))).sites) == 16
    with pytest.raises(TooLargeError, match="by 17 other runs"):
        Differentiation(Metric(5), tuple(asked))
