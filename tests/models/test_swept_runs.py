"""Sweeps beside one edited run a cell, in every family, and beside plain Hugging Face whose modules hooks change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from support.models.families import D_MODEL, FAMILIES, build_model, build_tokenizer
from support.servers.servers import tiny
from transparent_llm.analysis.metrics import Metric, entropy, kl, logit_difference, loss, projection
from transparent_llm.analysis.sweep_cells import Cell, Sweep
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError, TooLargeError
from transparent_llm.interventions import (
    Intervention,
    Site,
    add,
    attn_out,
    ffn_out,
    final_norm_scale,
    freeze,
    head,
    literal,
    mean,
    neurons,
    noise,
    patch,
    pattern,
    query,
    residual_after_attn,
    residual_in,
    residual_out,
    scale,
    value,
    zero,
)
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL
from transparent_llm_server.models.forward.neurons import DenseNeurons
from transparent_llm_server.models.sweeping import starts, swept_run

ROWS = [[1, 2, 3, 4, 5, 6, 7], [11, 12, 13, 14]]
OTHER = [[21, 22, 23, 24, 25, 26, 27], [31, 32, 33, 34]]
TOLERANCE = 2e-4
V = torch.linspace(-1.5, 2, D_MODEL).sin()


def ran(llm: TransformerLensTransparentLlm, rows: list[list[int]], edits: Any = ()) -> TransformerLensTransparentLlm:
    twin = llm.copy()
    twin.run_tokens(rows, edits=edits)
    return twin


def swept(llm: TransformerLensTransparentLlm, sweep: Sweep) -> tuple[torch.Tensor, torch.Tensor]:
    """Baselines [metric row] and values [cell metric row]."""
    parts = list(llm.sweep(sweep))
    values = torch.full((len(sweep.cells), *parts[0].values.shape[1:]), torch.nan, dtype=torch.float64)
    for part in parts:
        assert values[list(part.cells)].isnan().all()
        values[list(part.cells)] = part.values
    assert parts[0].baselines is not None
    assert all(part.baselines is None for part in parts[1:])
    return parts[0].baselines, values


def by_hand(llm: TransformerLensTransparentLlm, base: TransformerLensTransparentLlm, row: int) -> torch.Tensor:
    """The metrics of `METRICS` of a run, out of its reads."""
    n = int(llm.mask()[row].sum())
    logits, tokens = llm.logits()[row, :n].double(), llm.tokens()[row, :n]
    logprobs, before = logits.log_softmax(-1), base.logits()[row, n - 1].double().log_softmax(-1)
    last = logprobs[-1]
    unit = V.double() / V.double().norm()
    return torch.stack(
        [
            logits[-1, 5],
            logits[1, (6, 7)[row]] - logits[1, (8, 9)[row]],
            last[5],
            last[5].exp() - last[6].exp(),
            -logprobs[:-1].gather(1, tokens[1:, None]).mean(),
            (last.exp() * (last - before)).sum(),
            -(last.exp() * last).sum(),
            llm.residual_in(1)[row, n - 1].double() @ unit,
            llm.residual_out(-1)[row, 2].double() @ unit,
        ]
    )


METRICS = (
    Metric(5),
    logit_difference((6, 7), (8, 9), pos=1),
    Metric(5, measure="logprob"),
    Metric(5, 6, measure="prob"),
    loss(),
    kl(),
    entropy(),
    projection(residual_in(1), V),
    projection(residual_out(-1), V, pos=2),
)


def require_same(llm: TransformerLensTransparentLlm, template: Intervention, cells: list[Cell]) -> None:
    """Of a sweep, and of one run a cell."""
    base = ran(llm, ROWS)
    baselines, values = swept(base, Sweep((template,), tuple(cells), METRICS))
    for row in range(len(ROWS)):
        assert (baselines[:, row] - by_hand(base, base, row)).abs().max() <= TOLERANCE
    for cell, found in zip(cells, values, strict=True):
        alone = ran(llm, ROWS, [cell.put(template, (0, 1))])
        for row in range(len(ROWS)):
            wanted = by_hand(alone, base, row)
            assert (found[:, row] - wanted).abs().max() <= TOLERANCE * max(1.0, float(wanted.abs().max()))


def sites(llm: TransformerLensTransparentLlm) -> list[Site]:
    found = [residual_in(0), residual_out(0), attn_out(0), ffn_out(0)]
    if isinstance(llm.bridged.layers[0].neurons, DenseNeurons):
        found.append(neurons(0, [1, 3]))
    return found if llm.bridged.layers[0].is_parallel else [*found, residual_after_attn(0)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cell_is_what_a_run_of_its_own_gives_in_every_family(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swept_run, "_POSITIONS_AT_ONCE", {"cpu": 28})  # of two cells
    llm = TransformerLensTransparentLlm(family, *build(family))
    n_layers, n_heads = llm.model_info().n_layers, llm.model_info().n_heads
    for site in sites(llm):
        require_same(llm, scale(site, -0.5), [Cell(layer=layer) for layer in range(n_layers)])
    of_heads = [Cell(layer=layer, head=number) for layer in range(n_layers) for number in range(n_heads)]
    for site in (head(0, 0), pattern(0, 0), query(0, 0)):
        require_same(llm, zero(site), of_heads)
    require_same(llm, zero(value(0, 0)), [Cell(layer=layer) for layer in range(n_layers)])
    known = starts._known[llm.bridged]
    assert known == {layer: layer > 0 for layer in range(n_layers)}  # all families begin where they are changed


def build(family: str) -> tuple[Any, Any]:
    return build_model(FAMILIES[family]()), build_tokenizer()


def test_the_operations_mean_what_they_mean_in_runs() -> None:
    llm = tiny()
    source = ran(llm, OTHER)
    layers = [Cell(layer=layer) for layer in range(llm.model_info().n_layers)]
    require_same(llm, patch(head(0, 1), source), layers)
    require_same(llm, mean(attn_out(0), source), layers)
    require_same(llm, noise(residual_in(0), 0.5, 7, positions="all"), layers)
    require_same(llm, add(residual_out(0), literal(V), 3.0, positions="last", rows=[1]), layers)
    require_same(llm, freeze(ffn_out(0), source), layers)
    require_same(llm, freeze(final_norm_scale(), source), [Cell()])
    require_same(llm, patch(query(0, 0), source, positions=[1]), [Cell(layer=layer, head=1) for layer in (0, 1)])
    places = [Cell(layer=layer, positions=(pos, -1)) for layer in (0, 1) for pos in range(3)]
    require_same(llm, patch(residual_in(0), source, positions=[0, 2], source_positions=[1, 1]), places)


def test_a_patch_can_take_each_cell_from_another_row() -> None:
    llm, source = tiny(), ran(tiny(), [ROWS[0], OTHER[0]])
    template = patch(head(1, 0), source, rows=[0], source_rows=[1])
    base = ran(llm, ROWS)
    cells = (Cell(source_row=0), Cell(source_row=1), Cell())
    _, values = swept(base, Sweep((template,), cells, (Metric(5),), rows=(0,)))
    assert abs(float(values[0] - base.logits()[0, -1, 5])) <= TOLERANCE
    other = ran(llm, [ROWS[0]], [patch(head(1, 0), source, rows=[0], source_rows=[1])])
    for found in values[1:]:
        assert abs(float(found - other.logits()[0, -1, 5])) <= TOLERANCE


def test_edits_of_all_cells_come_before_templates_and_are_in_the_baselines() -> None:
    llm = tiny()
    edits, template = (add(residual_in(1), literal(V), positions="all"),), zero(residual_in(1))
    base = ran(llm, ROWS)
    sweep = Sweep((template,), (Cell(), Cell(layer=0)), (Metric(5), kl(base)), edits=edits)
    baselines, values = swept(base, sweep)
    with_edits = ran(llm, ROWS, edits)
    assert abs(float(baselines[0, 0] - with_edits.logits()[0, -1, 5])) <= TOLERANCE
    for cell, found in zip(sweep.cells, values, strict=True):
        alone = ran(llm, ROWS, [*edits, cell.put(template, (0, 1))])
        assert abs(float(found[0, 0] - alone.logits()[0, -1, 5])) <= TOLERANCE
    assert float(baselines[1].min()) > 0


def test_passes_begin_where_cells_change_and_end_where_metrics_look(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = TransformerLensTransparentLlm(str(DEMO_MODEL))
    base = ran(llm, ROWS)
    metric = projection(residual_in(3), torch.ones(llm.model_info().d_model))
    sweep = Sweep((zero(head(2, 0)),), tuple(Cell(head=number) for number in range(4)), (metric,))
    swept(base, sweep)  # finds out where it can begin
    computed: list[int] = []
    for i, layer in enumerate(llm.bridged.layers):
        attention = next(one for one in layer.plain.modules() if type(one).__name__.endswith("Attention"))
        monkeypatch.setattr(attention, "forward", counting(attention.forward, computed, i))
    swept(base, sweep)
    assert computed == [2]
    computed.clear()
    swept(base, Sweep(sweep.templates, sweep.cells, (Metric(5),)))
    assert computed == [2, 3]
    computed.clear()
    swept(base, Sweep((freeze(final_norm_scale(), base),), (Cell(),), (Metric(5),)))
    assert computed == []


def counting(forward: Any, computed: list[int], number: int) -> Any:
    def counted(*args: Any, **kwargs: Any) -> Any:
        computed.append(number)
        return forward(*args, **kwargs)

    return counted


def test_where_blocks_cannot_be_left_out_all_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose upper block takes something of a lower one, beside the stream."""
    llm = TransformerLensTransparentLlm(str(DEMO_MODEL))
    attentions = [
        next(one for one in layer.plain.modules() if type(one).__name__.endswith("Attention"))
        for layer in llm.bridged.layers
    ]
    held: list[torch.Tensor] = []

    def keeping(*args: Any, _forward: Any = attentions[0].forward, **kwargs: Any) -> Any:
        output = _forward(*args, **kwargs)
        held[:] = [output[0]]
        return output

    def taking(*args: Any, _forward: Any = attentions[3].forward, **kwargs: Any) -> Any:
        output = _forward(*args, **kwargs)
        return (output[0] + held.pop(), *output[1:])

    monkeypatch.setattr(attentions[0], "forward", keeping)
    monkeypatch.setattr(attentions[3], "forward", taking)
    base = ran(llm, [ROWS[0]])
    _, values = swept(base, Sweep((zero(head(2, 0)),), (Cell(), Cell(head=1)), (Metric(5),)))
    assert starts._known[llm.bridged] == {2: False}
    alone = ran(llm, [ROWS[0]], [zero(head(2, 0))])
    assert abs(float(values[0, 0, 0] - alone.logits()[0, -1, 5])) <= TOLERANCE


def test_plain_hugging_face_with_hooks_gives_the_same_grid() -> None:
    llm = TransformerLensTransparentLlm(str(DEMO_MODEL))
    plain = AutoModelForCausalLM.from_pretrained(str(DEMO_MODEL), attn_implementation="eager", trust_remote_code=False)
    info = llm.model_info()
    cells = tuple(Cell(layer=layer, head=n) for layer in range(info.n_layers) for n in range(info.n_heads))
    _, values = swept(ran(llm, [ROWS[0]]), Sweep((zero(head(0, 0)),), cells, (Metric(5, 6), loss())))
    blocks = next(module for module in plain.modules() if isinstance(module, torch.nn.ModuleList))
    for cell, found in zip(cells, values, strict=True):
        assert cell.layer is not None
        assert cell.head is not None
        projection_of = next(
            module for name, module in blocks[cell.layer].named_modules() if name.endswith(("o_proj", "attn.c_proj"))
        )
        width = info.d_model // info.n_heads
        part = slice(cell.head * width, (cell.head + 1) * width)

        def without(_: Any, args: Any, part: slice = part) -> Any:
            changed = args[0].clone()
            changed[..., part] = 0
            return (changed, *args[1:])

        handle = projection_of.register_forward_pre_hook(without)
        with torch.no_grad():
            logits = plain(torch.tensor([ROWS[0]])).logits[0].double()
        handle.remove()
        nll = -logits[:-1].log_softmax(-1).gather(1, torch.tensor(ROWS[0][1:])[:, None]).mean()
        assert abs(float(found[0, 0] - (logits[-1, 5] - logits[-1, 6]))) <= TOLERANCE
        assert abs(float(found[1, 0] - nll)) <= TOLERANCE


def test_passes_are_bounded_and_all_cells_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swept_run, "_POSITIONS_AT_ONCE", {"cpu": 30})
    llm = tiny()
    base = ran(llm, ROWS)
    cells = tuple(Cell(layer=layer % 2, head=layer % 3) for layer in range(11))
    sweep = Sweep((zero(head(0, 0)),), cells, (Metric(5),))
    parts = list(base.sweep(sweep))
    assert [len(part.cells) for part in parts] == [2, 2, 2, 2, 2, 1]
    assert base.plan_sweep(sweep) == (11 * 14, 0, 2)
    assert sorted(cell for part in parts for cell in part.cells) == list(range(11))
    assert [cells[cell].layer for part in parts for cell in part.cells] == [0] * 6 + [1] * 5


TEMPLATE, CELL, NUMBER = zero(head(0, 0)), Cell(), Metric(5)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Sweep((), (CELL,), (NUMBER,)), InvalidRequestError, "has no templates"),
        (lambda: Sweep((TEMPLATE,), (), (NUMBER,)), InvalidRequestError, "has no cells"),
        (lambda: Sweep((TEMPLATE,), (CELL,), ()), InvalidRequestError, "has no metrics"),
        (lambda: Sweep((TEMPLATE,), (CELL,), (NUMBER,) * 17), TooLargeError, "17 metrics of one sweep, at most 16"),
        (lambda: Sweep((TEMPLATE,) * 513, (CELL,), (NUMBER,)), TooLargeError, "513 edits of one cell, at most 512"),
        (lambda: Sweep((TEMPLATE,), (Cell(layer=9),), (NUMBER,)), IndexOutOfRangeError, "layer 9 is out of range"),
        (lambda: Sweep((TEMPLATE,), (Cell(head=9),), (NUMBER,)), IndexOutOfRangeError, "head 9 is out of range"),
        (lambda: Sweep((TEMPLATE,), (Cell(positions=(9,)),), (NUMBER,)), IndexOutOfRangeError, "position 9 is out"),
        (lambda: Sweep((TEMPLATE,), (Cell(neurons=(1,)),), (NUMBER,)), InvalidRequestError, "a cell names neurons"),
        (lambda: Sweep((TEMPLATE,), (Cell(source_row=1),), (NUMBER,)), InvalidRequestError, "a row of its source"),
        (lambda: Sweep((zero(residual_in(0)),), (Cell(head=1),), (NUMBER,)), InvalidRequestError, "names a head"),
        (lambda: Sweep((TEMPLATE,), (CELL,), (NUMBER,), rows=(5,)), IndexOutOfRangeError, "row 5 is out of range"),
        (lambda: Sweep((TEMPLATE,), (CELL,), (NUMBER,), rows=(0, -2)), InvalidRequestError, "rows names one twice"),
        (lambda: Sweep((zero(head(0, 0), rows=[1]),), (CELL,), (NUMBER,), rows=(0,)), InvalidRequestError, "not swept"),
        (lambda: Sweep((TEMPLATE,), (CELL,), (Metric(10**6),)), IndexOutOfRangeError, "token 1000000 is out of"),
        (lambda: Sweep((TEMPLATE,), (CELL,), (Metric((1, 2, 3)),)), InvalidRequestError, "3 entries for 2 rows"),
        (lambda: Sweep((TEMPLATE,), (CELL,), (Metric(5, pos=6),)), IndexOutOfRangeError, "pos 6 is out of range"),
        (
            lambda: Sweep((TEMPLATE,), (CELL,), (projection(residual_in(0), torch.zeros(D_MODEL)),)),
            InvalidRequestError,
            "not zero",
        ),
        (
            lambda: Sweep((TEMPLATE,), (CELL,), (kl(ran(tiny(), [ROWS[1], ROWS[0]])),)),
            InvalidRequestError,
            "kl compares with",
        ),
        (lambda: Metric(), InvalidRequestError, "needs a token"),
        (lambda: Metric(5, measure="loss"), InvalidRequestError, "has no token"),
        (lambda: Metric(5, measure="rank"), InvalidRequestError, 'measure must be one of "logit"'),  # type: ignore[arg-type]
        (lambda: projection(head(0, 0), V), InvalidRequestError, "of the residual stream"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, error: type[Exception], words: str) -> None:
    base = ran(tiny(), ROWS)
    with pytest.raises(error, match=words):
        list(base.sweep(make()))


def test_an_edited_run_and_a_row_without_a_next_token_are_refused() -> None:
    edited = ran(tiny(), ROWS, [zero(head(0, 0))])
    with pytest.raises(InvalidRequestError, match="is no base of a sweep"):
        list(edited.sweep(Sweep((TEMPLATE,), (CELL,), (NUMBER,))))
    with pytest.raises(InvalidRequestError, match="row 1 has one token"):
        list(ran(tiny(), [[1, 2], [3]]).sweep(Sweep((TEMPLATE,), (CELL,), (loss(),))))


def test_a_site_that_a_family_lacks_is_refused() -> None:
    llm = TransformerLensTransparentLlm("parallel", *build("gptj"))
    with pytest.raises(NotSupportedError, match="residual_after_attn"):
        list(ran(llm, ROWS).sweep(Sweep((zero(residual_after_attn(0)),), (CELL,), (NUMBER,))))
