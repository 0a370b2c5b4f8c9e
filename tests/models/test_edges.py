"""Edges between parts, beside a GPT-2 written out in which each receiver reads a stream of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from models.test_edited_runs import OTHER, ROW, edited, ran
from models.test_gradients import require_close
from support.models.families import FAMILIES, N_HEADS, build_model
from transparent_llm.analysis.differentiation import Differentiation, Edges, SiteGradient
from transparent_llm.analysis.metrics import Metric, projection
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import ffn_out, head, residual_in, zero

METRIC = Metric(5, 6)
LONGER, ITS_OTHER = [*ROW, 8, 9], [*OTHER, 18, 19]


class WrittenOut:
    """GPT-2: what senders add, and the gradient by the stream that each receiver reads."""

    def __init__(self) -> None:
        self.model: Any = build_model(FAMILIES["gpt2"]()).double().requires_grad_(False)

    def embedding(self, tokens: list[int]) -> torch.Tensor:
        inner = self.model.transformer
        found: torch.Tensor = inner.wte.weight[tokens] + inner.wpe.weight[: len(tokens)]
        return found

    def passed(self, stream: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The metric, what each sender adds, and nothing that is added to what each receiver reads."""
        added, read = {"residual_in(0)": stream}, {}

        def reads(name: str) -> torch.Tensor:
            read[name] = torch.zeros_like(stream, requires_grad=True)
            return stream + read[name]

        n_pos, d_head = len(stream), stream.shape[1] // N_HEADS
        hidden = torch.full((n_pos, n_pos), -torch.inf, dtype=stream.dtype).triu(1)
        for i, block in enumerate(self.model.transformer.h):
            weight, bias = (part.chunk(3, dim=-1) for part in (block.attn.c_attn.weight, block.attn.c_attn.bias))
            heads = []
            for n in range(N_HEADS):
                at = slice(n * d_head, (n + 1) * d_head)
                q, k, v = (
                    block.ln_1(reads(f"{name}({i}, {n})")) @ weight[part][:, at] + bias[part][at]
                    for part, name in enumerate(("query", "key", "value"))
                )
                z = (q @ k.T / math.sqrt(d_head) + hidden).softmax(-1) @ v
                heads.append(z @ block.attn.c_proj.weight[at])
                added[f"head({i}, {n})"] = heads[-1]
            stream = stream + sum(heads) + block.attn.c_proj.bias
            added[f"ffn_out({i})"] = block.mlp(block.ln_2(reads(f"ffn({i})")))
            stream = stream + added[f"ffn_out({i})"]
        logits = self.model.lm_head(self.model.transformer.ln_f(reads("logits")))[-1]
        return logits[5] - logits[6], added, read


@pytest.mark.parametrize("steps", [0, 3])
def test_edges_are_those_of_a_model_whose_receivers_read_streams_of_their_own(steps: int) -> None:
    llm, other, written = ran("gpt2", ROW), ran("gpt2", OTHER), WrittenOut()
    start, end = written.embedding(ROW), written.embedding(OTHER)
    metric, own, _ = written.passed(start)
    _, theirs, _ = written.passed(end)
    nodes = [(0.0, 1.0)]
    if steps:
        rule = zip(*np.polynomial.legendre.leggauss(steps), strict=True)
        nodes = [(float(node + 1) / 2, float(weight) / 2) for node, weight in rule]
    wanted: dict[tuple[str, str], float] = {}
    for node, weight in nodes:
        number, _, read = written.passed(start + node * (end - start))
        gradients = dict(zip(read, torch.autograd.grad(number, list(read.values())), strict=True))
        for sender in own:
            for receiver, gradient in gradients.items():
                score = weight * float(((theirs[sender] - own[sender]).detach() * gradient).sum())
                wanted[sender, receiver] = wanted.get((sender, receiver), 0.0) + score
    found = llm.gradients(Differentiation(METRIC, edges=Edges(other, steps=steps)))
    assert found.edges is not None
    assert float(found.metric[0]) == pytest.approx(float(metric.detach()), abs=1e-4)
    scores = found.edges
    for n, sender in enumerate(own):
        order = layer_and_rank(sender)
        for i in range(2):
            by_name = {f"ffn({i})": scores.ffn[0, n, i]}
            for name in ("query", "key", "value"):
                by_name |= {f"{name}({i}, {h})": getattr(scores, name)[0, n, i, h] for h in range(N_HEADS)}
            for receiver, score in by_name.items():
                comes_before = order < layer_and_rank(receiver)
                assert float(score) == pytest.approx(wanted[sender, receiver] if comes_before else 0.0, abs=2e-5)
        assert float(scores.logits[0, n]) == pytest.approx(wanted[sender, "logits"], abs=2e-5)
    assert max(map(abs, wanted.values())) > 1e-3


def layer_and_rank(name: str) -> tuple[int, int]:
    if name == "residual_in(0)":
        return (-1, 0)
    kind, layer = name.split("(")[0], int(name.split("(")[1].split(",")[0].rstrip(")"))
    return (layer, {"query": 0, "key": 0, "value": 0, "head": 1, "ffn": 2, "ffn_out": 3}[kind])


@pytest.mark.parametrize("family", ["gpt2", "llama_gqa", "gemma2", "falcon", "granite", "mixtral", "bloom"])
@pytest.mark.parametrize("frozen", [(), ("norm_scales", "patterns")])
def test_edges_of_a_sender_add_up_to_its_node(family: str, frozen: Any) -> None:
    """In each row, beside the difference times the gradient at the place of the sender."""
    llm, other = ran(family, ROW, LONGER), ran(family, ITS_OTHER, OTHER)
    edges = llm.gradients(Differentiation(METRIC, edges=Edges(other, (1, 0)), frozen=frozen)).edges
    assert edges is not None
    n_layers = edges.query.shape[2]
    total = torch.stack([tensor.reshape(*tensor.shape[:2], -1).sum(2) for tensor in edges]).sum(0)
    sites = [residual_in(0)]
    for layer in range(n_layers):
        sites += [head(layer), ffn_out(layer)]
    asked = tuple(SiteGradient(site, "times_difference", other, (1, 0)) for site in sites)
    nodes = llm.gradients(Differentiation(METRIC, asked, frozen=frozen)).sites
    wanted = torch.cat([node.sum(1).reshape(2, -1) for node in nodes], dim=1)
    require_close(total, wanted, 1e-3)
    assert bool(edges.query.any()) != bool(frozen)


def test_what_has_no_edges_is_refused() -> None:
    llm, other = ran("gpt2", ROW), ran("gpt2", OTHER)
    with pytest.raises(InvalidRequestError, match="without edits, and of a metric of logits"):
        Differentiation(projection(residual_in(1), torch.ones(64)), edges=Edges(other))
    with pytest.raises(InvalidRequestError, match="give one of them"):
        Differentiation(METRIC, (SiteGradient(head(0)),), edges=Edges(other))
    with pytest.raises(InvalidRequestError, match="0 to 1000 steps, got 1001"):
        Edges(other, steps=1001)
    with pytest.raises(InvalidRequestError, match="name source_rows"):
        llm.gradients(Differentiation(METRIC, edges=Edges(ran("gpt2", OTHER[:3]))))
    with pytest.raises(InvalidRequestError, match="a run that was edited is not differentiated"):
        edited("gpt2", zero(head(0, 0))).gradients(Differentiation(METRIC, edges=Edges(other)))
