"""Path patching beside plain Hugging Face models, one sender a run, and what is known of the demo model's heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch

from models.test_edited_runs import DOWNS, EXPERTS, OTHER, OUTPUTS, PARALLEL, ROW, blocks, part
from support.models.families import FAMILIES, N_HEADS, build_model
from support.servers.servers import Listener, served, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis import paths
from transparent_llm.analysis.metrics import loss
from transparent_llm.analysis.paths import path_patch
from transparent_llm.analysis.sweeps import Metric
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError
from transparent_llm.interventions import (
    Site,
    attn_out,
    ffn_out,
    head,
    key,
    neurons,
    pattern,
    query,
    residual_after_attn,
    residual_in,
    residual_out,
    value,
)
from transparent_llm_server import TransformerLensTransparentLlm

TOLERANCE = 5e-5
METRIC = Metric(7, 9)
PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
WITH_PROJECTIONS = ("gpt2", "gpt_neox_parallel", "opt", "llama_gqa", "mixtral", "qwen3", "gemma2", "stablelm")
"""Families of which a test knows where queries, keys and values come from."""

Change = Callable[[torch.Tensor], torch.Tensor]
Place = tuple[str, int]
"""A kind and a layer."""


class Plain:
    """A plain model in which torch hooks see, and change, what passes some places."""

    def __init__(self, family: str) -> None:
        self.model: Any = build_model(FAMILIES[family]())
        self.changes: Mapping[Place, Change] = {}
        self.seen: dict[Place, torch.Tensor] = {}
        self.family, self.n_layers = family, len(blocks(self.model))
        for layer, block in enumerate(blocks(self.model)):
            down = block.mlp if family in EXPERTS else part(block, DOWNS)
            self._watch(("residual_in", layer), block, at_input=True)
            self._watch(("head", layer), part(block, OUTPUTS), at_input=True)
            self._watch(("ffn_out", layer), down, at_input=False)
            if family not in EXPERTS:
                self._watch(("neurons", layer), down, at_input=True)
            if family in WITH_PROJECTIONS:
                self._watch_attention(layer, block)

    def _watch_attention(self, layer: int, block: Any) -> None:
        if self.family == "gpt2":
            self._watch(("fused", layer), block.attn.c_attn, at_input=False)
        elif self.family == "gpt_neox_parallel":
            self._watch(("fused", layer), block.attention.query_key_value, at_input=False)
        else:
            for name, projection in PROJECTIONS.items():
                self._watch((name, layer), getattr(block.self_attn, projection), at_input=False)
        if self.family in ("gpt2", "llama_gqa"):
            self._watch(("attn_out", layer), block.attn if self.family == "gpt2" else block.self_attn, at_input=False)

    def _watch(self, place: Place, module: Any, *, at_input: bool) -> None:
        def passed(x: torch.Tensor) -> torch.Tensor:
            made = self.changes[place](x) if place in self.changes else x
            self.seen[place] = made.clone()
            return made

        def given(_: Any, args: Any, kwargs: Any) -> Any:
            if args:
                return (passed(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": passed(kwargs["hidden_states"])}

        def gives(_: Any, __: Any, output: Any) -> Any:
            return passed(output) if isinstance(output, torch.Tensor) else (passed(output[0]), *output[1:])

        if at_input:
            module.register_forward_pre_hook(given, with_kwargs=True)
        else:
            module.register_forward_hook(gives)

    def run(self, row: list[int], changes: Mapping[Place, Change]) -> tuple[torch.Tensor, dict[Place, torch.Tensor]]:
        """Logits [pos d_vocab], and what passed each place."""
        self.changes, self.seen = changes, {}
        logits: torch.Tensor = self.model(torch.tensor([row]), use_cache=False).logits[0]
        return logits, self.seen

    def sent(self, sender: Site, freeze_ffn: bool) -> tuple[torch.Tensor, dict[Place, torch.Tensor]]:
        """Of the base, in which the sender has what the source has, and all else is frozen."""
        from_source, base = self.run(OTHER, {})[1], self.run(ROW, {})[1]
        kinds = ("head", "ffn_out") if freeze_ffn else ("head",)
        kept = {(kind, layer): base[kind, layer].clone() for kind in kinds for layer in range(self.n_layers)}
        place = (sender.kind.value, sender.layer)
        d_head = base["head", 0].shape[-1] // N_HEADS
        at = slice(None) if sender.head is None else slice(sender.head * d_head, (sender.head + 1) * d_head)
        changed = base[place].clone()
        changed[..., at] = from_source[place][..., at]
        kept[place] = changed
        return self.run(ROW, {each: _gives(tensor) for each, tensor in kept.items()})

    def path(self, sender: Site, receivers: Sequence[Site], freeze_ffn: bool) -> torch.Tensor:
        """Logits [pos d_vocab] of the base, in which the receivers have what they have there."""
        logits, seen = self.sent(sender, freeze_ffn)
        if receivers[0].kind.value == "residual_out":
            return logits
        changes: dict[Place, Change] = {}
        for each in receivers:
            place, change = self._received(each, seen)
            changes[place] = _then(changes[place], change) if place in changes else change
        return self.run(ROW, changes)[0]

    def _received(self, receiver: Site, seen: dict[Place, torch.Tensor]) -> tuple[Place, Change]:
        kind, layer = receiver.kind.value, receiver.layer
        if kind == "residual_after_attn":
            mid = seen["residual_in", layer] + seen["attn_out", layer]
            before = self.run(ROW, {})[1]["residual_in", layer]
            return ("attn_out", layer), _gives(mid - before)
        place = ("fused", layer) if ("fused", layer) in seen and kind in PROJECTIONS else (kind, layer)
        at = slice(None) if receiver.head is None else self._slice(receiver, place)
        return place, _gives(seen[place], at)

    def _slice(self, receiver: Site, place: Place) -> slice:
        d_head, nth = self.seen["head", 0].shape[-1] // N_HEADS, list(PROJECTIONS).index(receiver.kind.value)
        start = int(receiver.head or 0) * d_head
        if self.family == "gpt2":
            start += nth * N_HEADS * d_head
        elif place[0] == "fused":
            start = 3 * start + nth * d_head
        return slice(start, start + d_head)


def _then(first: Change, second: Change) -> Change:
    return lambda x: second(first(x))


def _gives(tensor: torch.Tensor, at: slice = slice(None)) -> Change:
    def change(x: torch.Tensor) -> torch.Tensor:
        made = x.clone()
        made[..., at] = tensor.reshape(x.shape)[..., at]
        return made

    return change


def ran(llm: Any, *rows: list[int]) -> Any:
    twin = llm.copy()
    twin.run_tokens(list(rows))
    return twin


def measured(logits: torch.Tensor) -> float:
    return float(logits[-1, 7] - logits[-1, 9])


def require_paths(family: str, receivers: Site | list[Site], n_layers: int, senders: Any = "head") -> None:
    """As in the plain model, one sender after the other, with feed-forward parts that are computed and frozen."""
    plain, llm = Plain(family), tiny(family)
    wanted_of = receivers if isinstance(receivers, list) else [receivers]
    source, base = (measured(plain.run(row, {})[0]) for row in (OTHER, ROW))
    for freeze_ffn in (False, True):
        found = path_patch(ran(llm, OTHER), ran(llm, ROW), receivers, METRIC, senders=senders, freeze_ffn=freeze_ffn)
        across = range(N_HEADS) if senders == "head" else [None]
        sites = [head(layer, n) if senders == "head" else ffn_out(layer) for layer in range(n_layers) for n in across]
        wanted = torch.tensor([measured(plain.path(site, wanted_of, freeze_ffn)) for site in sites])
        assert found["value"].shape == ((n_layers, N_HEADS) if senders == "head" else (n_layers,))
        assert (found["value"].flatten() - wanted).abs().max().item() <= TOLERANCE
        score = (wanted - base) / (source - base)
        assert (found["score"].flatten() - score).abs().max().item() <= TOLERANCE * (1 + 2 / abs(source - base))
        assert (wanted - base).abs().max() > 4 * TOLERANCE


def n_layers_of(family: str) -> int:
    return tiny(family).model_info().n_layers


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_effects_are_those_of_the_plain_model(family: str) -> None:
    require_paths(family, residual_out(-1), n_layers_of(family))
    require_paths(family, residual_out(-1), n_layers_of(family), "ffn_out")


@pytest.mark.parametrize("family", FAMILIES)
def test_through_the_stream_before_a_layer(family: str) -> None:
    require_paths(family, residual_in(1), 1)


@pytest.mark.parametrize("site", [query, key, value])
@pytest.mark.parametrize("family", WITH_PROJECTIONS)
def test_through_one_input_of_a_head(family: str, site: Callable[[int, int], Site]) -> None:
    require_paths(family, site(1, 1), 1)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama_gqa", "gemma2"])
def test_through_the_neurons_of_a_layer(family: str) -> None:
    """Which its own heads come before, but not its feed-forward part."""
    require_paths(family, neurons(1), 2)
    require_paths(family, neurons(1), 1, "ffn_out")


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_through_the_neurons_of_experts(family: str) -> None:
    """With the weight of the router, they are all that a layer of experts adds."""
    plain, llm = Plain(family), tiny(family)
    found = path_patch(ran(llm, OTHER), ran(llm, ROW), neurons(1), METRIC)["value"]
    base = measured(plain.run(ROW, {})[0])
    for layer, n in ((0, 0), (0, 3), (1, 2)):
        added = plain.sent(head(layer, n), False)[1]["ffn_out", 1]
        wanted = measured(plain.run(ROW, {("ffn_out", 1): _gives(added)})[0])
        assert float(found[layer, n]) == pytest.approx(wanted, abs=TOLERANCE)
        assert abs(wanted - base) > 4 * TOLERANCE


@pytest.mark.parametrize("family", ["gpt2", "llama_gqa"])
def test_through_the_stream_between_the_branches(family: str) -> None:
    require_paths(family, residual_after_attn(1), 2)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox_parallel"])
def test_several_receivers_are_patched_together(family: str) -> None:
    require_paths(family, [query(1, 0), key(1, 2), value(1, 3)], 1)
    by_two = path_patch(ran(tiny(family), OTHER), ran(tiny(family), ROW), [query(1), key(1)], METRIC)
    by_pattern = path_patch(ran(tiny(family), OTHER), ran(tiny(family), ROW), pattern(1), METRIC)
    assert (by_two["value"] - by_pattern["value"]).abs().max() <= TOLERANCE


def test_a_sender_that_does_not_come_before_does_nothing() -> None:
    """To the bit: heads beside the neurons of a block, and those behind one of two receivers."""
    llm = tiny(PARALLEL[0])
    beside = path_patch(ran(llm, OTHER), ran(llm, ROW), neurons(0), METRIC)
    assert beside["score"].tolist() == [[0.0] * N_HEADS]
    alone = path_patch(ran(llm, OTHER), ran(llm, ROW), residual_in(1), METRIC)
    both = path_patch(ran(llm, OTHER), ran(llm, ROW), [residual_in(1), residual_out(0)], METRIC)
    assert torch.equal(alone["value"], both["value"])
    two = path_patch(ran(llm, OTHER), ran(llm, ROW), [query(1, 0), neurons(1)], METRIC)
    assert two["score"][1].tolist() == [0.0] * N_HEADS
    same = path_patch(ran(llm, ROW), ran(llm, ROW), query(1, 0), METRIC)
    assert same["value"].tolist() == [pytest.approx([measured(ran(llm, ROW).logits()[0])] * N_HEADS, abs=TOLERANCE)]


def test_positions_of_the_receiver() -> None:
    llm = tiny()
    source, base = ran(llm, OTHER), ran(llm, ROW)
    last = path_patch(source, base, residual_out(-1), METRIC, positions="last")["value"]
    for positions in ("all", range(len(ROW)), [-1]):
        assert torch.equal(path_patch(source, base, residual_out(1), METRIC, positions=positions)["value"], last)
    assert (path_patch(source, base, residual_out(-1), METRIC, positions=[2])["score"] == 0).all()
    plain = Plain("gpt2")
    seen = plain.sent(head(0, 2), False)[1]["residual_in", 1]

    def at_two(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :2], seen[:, 2:3], x[:, 3:]], dim=1)

    wanted = measured(plain.run(ROW, {("residual_in", 1): at_two})[0])
    found = path_patch(source, base, residual_in(1), METRIC, positions=(each for each in [2]))
    assert float(found["value"][0, 2]) == pytest.approx(wanted, abs=TOLERANCE)


def test_rows_of_larger_runs_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other rows of both runs, longer than these, do nothing; nor does how many senders share a run."""
    llm, long = tiny(), [*range(20, 40)]
    whole = path_patch(ran(llm, OTHER), ran(llm, ROW), [key(1, 0), residual_out(1)], METRIC)
    monkeypatch.setattr(paths, "_MOST_CELLS", 3)
    counts: list[tuple[int, int | None]] = []
    found = path_patch(
        *(ran(llm, long, OTHER), ran(llm, long, long, ROW), [key(1, 0), residual_out(1)], METRIC),
        source_row=1,
        base_row=-1,
        progress=lambda n, of: counts.append((n, of)),
    )
    assert (found["value"] - whole["value"]).abs().max() <= TOLERANCE
    assert counts == [(3, 8), (6, 8), (8, 8)]
    monkeypatch.setattr(paths, "_MOST_PLACES", 1)
    alone = path_patch(ran(llm, OTHER), ran(llm, ROW), [key(1, 0), residual_out(1)], METRIC)
    assert (alone["value"] - whole["value"]).abs().max() <= TOLERANCE
    assert repr(found).startswith("Labelled('logit with one head of the source row on its way to key(1, 0), residual_o")
    assert [axis.name for axis in found.axes] == ["layer", "head"]


def repeated() -> tuple[list[int], list[int]]:
    """A row whose second half is its first, and one that ends as it does after something else."""
    generator = torch.Generator().manual_seed(1)
    half, other = (torch.randint(10, 900, (16,), generator=generator).tolist() for _ in range(2))
    return half + half, other + half


@pytest.mark.parametrize("measure", ["logit", "logprob", "prob"])
def test_local_and_remote_are_equal_to_the_bit(
    measure: Any, demo: TransformerLensTransparentLlm, remote: RemoteTransparentLlm
) -> None:
    base, source = repeated()
    for receivers, senders in ((key(1, 0), "head"), ([query(2), value(3, 1)], "ffn_out"), (residual_out(-1), "head")):
        found = []
        for llm in (demo, remote):
            objects = ran(llm, source), ran(llm, base)
            metric = Metric(base[8], base[9], pos=23, measure=measure)
            before = [one.logits() for one in objects]
            found.append(path_patch(*objects, receivers, metric, senders=senders, freeze_ffn=True))  # type: ignore[arg-type]
            assert all(torch.equal(one.logits(), kept) for one, kept in zip(objects, before, strict=True))
        for name in ("value", "score"):
            assert torch.equal(found[0][name], found[1][name])
        assert found[0].title == found[1].title
        assert found[0].axes == found[1].axes


def test_a_server_keeps_no_run_of_it() -> None:
    """Three runs for some dozens of senders; two where the receiver is the output."""
    heard = Listener()
    with served(heard) as llm:
        source, base = ran(llm, OTHER), ran(llm, ROW)
        heard.calls.clear()
        path_patch(source, base, residual_in(1), METRIC)
        assert heard.names.count("Run") == heard.names.count("ReleaseRun") == 3
        heard.calls.clear()
        path_patch(source, base, residual_out(-1), METRIC)
        assert heard.names.count("Run") == heard.names.count("ReleaseRun") == 2


def test_each_measure_is_that_of_the_logits(demo: TransformerLensTransparentLlm) -> None:
    base, source = repeated()
    rows = [ran(demo, row).logits()[0, 23] for row in (source, base)]
    measures: dict[Any, Change] = {
        "logit": lambda x: x,
        "logprob": lambda x: x.log_softmax(0),
        "prob": lambda x: x.softmax(0),
    }
    for measure, of in measures.items():
        found = path_patch(ran(demo, source), ran(demo, base), value(1, 0), Metric(base[8], pos=23, measure=measure))
        of_source, of_base = (float(of(row)[base[8]]) for row in rows)
        assert found.title.endswith(f"value(1, 0) (source {of_source:.4g}, base {of_base:.4g})")


def test_the_previous_token_head_acts_through_the_key_of_the_induction_head(
    demo: TransformerLensTransparentLlm,
) -> None:
    """Layer 0 head 0 was trained to attend to the token before; head 0 of layer 1 finds with it what came before."""
    base, source = repeated()
    metric = Metric(base[8], pos=23, measure="logprob")
    scores = {
        site.__name__: path_patch(ran(demo, source), ran(demo, base), site(1, 0), metric)["score"]
        for site in (query, key, value)
    }
    through_key = scores["key"][0]
    assert through_key[0] > 0.8
    assert through_key[1:].abs().max() < 0.05
    assert scores["query"][0, 0].abs() < 0.05
    assert scores["value"][0, 0].abs() < 0.05
    direct = path_patch(ran(demo, source), ran(demo, base), residual_out(-1), metric)["score"]
    assert direct[1, 0] > 0.8  # whose own effect goes on through feed-forward parts
    assert direct.flatten()[[*range(4), *range(5, 16)]].abs().max() < 0.05


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"row": [1, 2]}, InvalidRequestError, "the source row has 7 tokens, the base row 2: they must have as many"),
        ({"receivers": []}, InvalidRequestError, r"receivers is empty: name at least one site, such as residual_out"),
        ({"receivers": 3}, InvalidRequestError, r"receivers are sites such as query\(3, 1\), got int"),
        ({"receivers": [query(1, 0), "key"]}, InvalidRequestError, r"receivers are sites such as query\(3, 1\), got"),
        (
            {"receivers": attn_out(1)},
            InvalidRequestError,
            r"attn_out\(1\) cannot be a receiver: it must be one",
        ),
        ({"receivers": query(0, 1)}, InvalidRequestError, r"no head comes before query\(0, 1\)"),
        ({"receivers": residual_in(-2)}, InvalidRequestError, r"no head comes before residual_in\(-2\)"),
        ({"receivers": neurons(0), "senders": "ffn_out"}, InvalidRequestError, r"no ffn_out comes before neurons\(0\)"),
        ({"receivers": key(2, 0)}, IndexOutOfRangeError, "layer 2 is out of range: valid indices are 0 to 1"),
        ({"receivers": key(1, 4)}, IndexOutOfRangeError, "4 is out of range: valid indices are 0 to 3"),
        ({"senders": "attn_out"}, InvalidRequestError, 'senders must be one of "head", "ffn_out", got'),
        ({"positions": [7]}, IndexOutOfRangeError, "7 is out of range"),
        ({"positions": "first"}, InvalidRequestError, "positions is 'first': it must be 'all' or 'last', or a list"),
        ({"metric": loss()}, InvalidRequestError, "measure must be one of"),
        ({"metric": Metric(3, pos=9)}, IndexOutOfRangeError, "pos 9 is out of range"),
        ({"source_row": 1}, IndexOutOfRangeError, "batch_i 1 is out of range"),
        ({"family": PARALLEL[0], "receivers": residual_after_attn(1)}, NotSupportedError, "there is none between them"),
    ],
)
def test_what_is_no_path_is_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    llm = tiny(options.pop("family", "gpt2"))
    receivers, metric = options.pop("receivers", query(1, 0)), options.pop("metric", METRIC)
    source, base = ran(llm, OTHER), ran(llm, options.pop("row", ROW))
    with pytest.raises(error, match=words):
        path_patch(source, base, receivers, metric, **options)
