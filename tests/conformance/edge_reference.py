"""Edge attribution patching of a plain GPT-2 by autograd: the gradient by what each part alone reads of the stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from conformance.gradient_reference import metric_of, nodes_of

Fields = dict[str, Any]
Parts = dict[str, Tensor]


def parts(model: PreTrainedModel, rows: list[list[int]], others: list[list[int]], step: Fields) -> Parts:
    """The tensors of an answer by their names."""
    chosen = list(step.get("rows", range(len(rows))))
    sources = step["edges"].get("source_rows") or chosen
    found = [
        EdgeReference(model, rows[row], others[source], number, step).parts()
        for number, (row, source) in enumerate(zip(chosen, sources, strict=True))
    ]
    return {name: torch.stack([row[name] for row in found]) for name in found[0]}


class EdgeReference:
    """Of one row and the row of the other run."""

    def __init__(self, model: PreTrainedModel, ids: list[int], others: list[int], number: int, step: Fields) -> None:
        self._model, self._ids, self._others = model, ids, others
        self._number, self._step = number, step
        self._n_layers, self._n_heads = model.config.n_layer, model.config.n_head

    def parts(self) -> Parts:
        metric, own = self._passed(self._ids)
        _, theirs = self._passed(self._others)
        differences = (self._added(theirs) - self._added(own)).detach()
        start, end = own["in 0"].detach(), theirs["in 0"].detach()
        steps = self._step["edges"].get("steps", 0)
        found: Parts = {}
        for node, weight in nodes_of(steps) if steps else [(0.0, 1.0)]:
            number, held = self._passed(self._ids, start + node * (end - start))
            for name, gradient in self._gradients(number, held).items():
                scores = weight * torch.einsum("spd,...pd->s...", differences, gradient)
                found[name] = found.get(name, torch.zeros(())) + scores
        return {"metric": metric.detach().double(), **{name: self._before(name, found[name]) for name in found}}

    def _passed(self, ids: list[int], stream: Tensor | None = None) -> tuple[Tensor, Parts]:
        """The metric, and what modules gave and were given; with this stream into the first block."""
        held: Parts = {}
        with _holding(self._model, held, stream):
            logits = self._model(torch.tensor([ids])).logits[0, self._step["metric"]["pos"]]
        return metric_of(logits, self._number, self._step["metric"]), held

    def _added(self, held: Parts) -> Tensor:
        """What each sender adds to the stream [sender pos d_model], but for biases, of which nothing is left here."""
        added = [held["in 0"][0]]
        for layer, block in enumerate(self._model.transformer.h):
            by_head = held[f"heads {layer}"][0].unflatten(1, (self._n_heads, -1)).transpose(0, 1)
            added += [*(by_head @ block.attn.c_proj.weight.unflatten(0, (self._n_heads, -1))), held[f"ffn {layer}"][0]]
        return torch.stack(added)

    def _gradients(self, metric: Tensor, held: Parts) -> Parts:
        """By what each receiver reads, with axes of layers and heads before [pos d_model]."""
        found: dict[str, list[Tensor]] = {name: [] for name in ("query", "key", "value", "ffn")}
        for layer in range(self._n_layers):
            of_attention, of_ffn, read = held[f"qkv {layer}"], held[f"ffn {layer}"], held[f"in {layer}"]
            whole, by_ffn = torch.autograd.grad(metric, [of_attention, of_ffn], retain_graph=True)
            by_head = whole.unflatten(2, (3, self._n_heads, -1))
            for part, name in enumerate(("query", "key", "value")):
                of_heads = []
                for head in range(self._n_heads):
                    alone = torch.zeros_like(by_head)
                    alone[:, :, part, head] = by_head[:, :, part, head]
                    of_heads.append(_by(of_attention, read, alone.flatten(2)))
                found[name].append(torch.stack(of_heads))
            found["ffn"].append(_by(of_ffn, held[f"mid {layer}"], by_ffn))
        (last,) = torch.autograd.grad(metric, held["last"], retain_graph=True)
        return {**{name: torch.stack(of_layers) for name, of_layers in found.items()}, "logits": last[0]}

    def _before(self, name: str, scores: Tensor) -> Tensor:
        """0 where a sender does not come before a receiver [sender layer ...]."""
        if name == "logits":
            return scores
        per_layer = self._n_heads + 1
        scores = scores.clone()
        for layer in range(self._n_layers):
            first = 1 + layer * per_layer + (self._n_heads if name == "ffn" else 0)
            scores[first:, layer] = 0
        return scores


def _by(output: Tensor, read: Tensor, gradient: Tensor) -> Tensor:
    return torch.autograd.grad(output, read, gradient, retain_graph=True)[0][0]


@contextmanager
def _holding(model: PreTrainedModel, held: Parts, stream: Tensor | None) -> Iterator[None]:
    """Of each layer what enters it; queries, keys and values; what heads give; the feed-forward part, in and out."""

    def given(name: str, module: Any) -> Any:
        def keep(_: Any, inputs: tuple[Tensor, ...]) -> Any:
            held[name] = inputs[0]

        return module.register_forward_pre_hook(keep)

    def gives(name: str, module: Any) -> Any:
        def keep(_: Any, inputs: Any, output: Tensor) -> None:
            held[name] = output

        return module.register_forward_hook(keep)

    inner = model.transformer
    hooks = [] if stream is None else [inner.drop.register_forward_hook(lambda *_: stream.clone().requires_grad_())]
    for layer, block in enumerate(inner.h):
        hooks += [given(f"in {layer}", block.ln_1), gives(f"qkv {layer}", block.attn.c_attn)]
        hooks += [given(f"heads {layer}", block.attn.c_proj), given(f"mid {layer}", block.ln_2)]
        hooks.append(gives(f"ffn {layer}", block.mlp.c_proj))
    hooks.append(given("last", inner.ln_f))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
