"""Path patching beside plain Hugging Face models, one sender a run, and what is known of the demo model's heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch

from models.test_edited_runs import DOWNS, EXPERTS, OTHER, OUTPUTS, PARALLEL, ROW, blocks, part
from support.models.families import FAMILIES, N_HEADS, build_model
from support.servers.servers import running, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis import paths
from transparent_llm.analysis.paths import path_patch
from transparent_llm.analysis.sweeps import Metric
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError
from transparent_llm.interventions import (
    ffn_out,
    Site,
    attn_out,
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
from transparent_llm_server.demo import DEMO_MODEL

TOLERANCE = 2e-4
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
            made = self.changes.get(place, lambda same: same)(x)
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
        return self.run(ROW, dict(self._received(each, seen) for each in receivers))[0]

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
        found = path_patch(
            ran(llm, OTHER), ran(llm, ROW), receivers, METRIC, senders=senders, freeze_ffn=freeze_ffn
        )
        across = range(N_HEADS) if senders == "head" else [None]
        sites = [head(layer, n) if senders == "head" else ffn_out(layer) for layer in range(n_layers) for n in across]
        wanted = torch.tensor([measured(plain.path(site, wanted_of, freeze_ffn)) for site in sites])
        assert found["value"].shape == ((n_layers, N_HEADS) if senders == "head" else (n_layers,))
        assert (found["value"].flatten() - wanted).abs().max().item() <= TOLERANCE
        score = (wanted - base) / (source - base)
        assert (found["score"].flatten() - score).abs().max().item() <= TOLERANCE * (1 + 2 / abs(source - base))
        assert (wanted - base).abs().max() > 10 * TOLERANCE


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
