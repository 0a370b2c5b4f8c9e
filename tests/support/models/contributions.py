"""Contributions by their definition, in float64, with every part built: the reference of what the analyses give."""

from __future__ import annotations

from dataclasses import dataclass

import networkx
import torch
from torch.nn.functional import pairwise_distance

from transparent_llm.contract import TransparentLlm

P = {"l1": 1.0, "l2": 2.0}


def contributions(parts: torch.Tensor, whole: torch.Tensor, p: float) -> torch.Tensor:
    """Of parts [pos part d_model] to wholes [pos d_model]."""
    parts, whole = parts.double(), whole.double()
    distance = pairwise_distance(parts, whole[:, None].expand_as(parts), p=p)
    shares = (whole.norm(p=p, dim=-1)[:, None] - distance).clamp(min=1e-5)
    return shares / shares.sum(1, keepdim=True)


@dataclass(frozen=True)
class Row:
    """A row of the current run, of which so many positions hold tokens."""

    llm: TransparentLlm
    index: int
    n_tokens: int

    def stream(self, name: str, layer: int) -> torch.Tensor:
        """A value [batch pos d_model] of this row."""
        value: torch.Tensor = getattr(self.llm, name)(layer)
        return value[self.index, : self.n_tokens]

    def attention(self, layer: int, norm: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Of heads [target source head] and of the stream [target]."""
        n = self.n_tokens
        parts = self.llm.decomposed_attn(self.index, layer)[:n, :n]
        flat = torch.cat([parts.reshape(n, -1, parts.shape[-1]), self.stream("residual_in", layer)[:, None]], dim=1)
        found = contributions(flat, self.stream("residual_after_attn", layer), P[norm])
        return found[:, :-1].reshape(parts.shape[:3]), found[:, -1]

    def ffn(self, layer: int, norm: str) -> torch.Tensor:
        """Of the feed-forward part and of the stream [pos 2]."""
        parts = torch.stack([self.stream("ffn_out", layer), self.stream("residual_after_attn", layer)], dim=1)
        return contributions(parts, self.stream("residual_out", layer), P[norm])

    def edges(self, layer: int, threshold: float, norm: str) -> tuple[torch.Tensor, ...]:
        """Of attention [target source] and the rest [pos], renormalised above a threshold; one by one, in Python."""
        heads, stream = self.attention(layer, norm)
        ffn = self.ffn(layer, norm)
        found = (torch.zeros(heads.shape[:2]), *(torch.zeros(self.n_tokens) for _ in range(3)))
        for t in range(self.n_tokens):
            left = [(s, float(c)) for s, row in enumerate(heads[t]) for c in row if c > threshold]
            kept = float(stream[t]) if stream[t] > threshold else 0.0
            total = kept + sum(c for _, c in left)
            for s, c in left:
                found[0][t, s] += c / total
            found[1][t] = kept / total if total else 0.0
            kept_ffn = [float(c) if c > threshold else 0.0 for c in ffn[t]]
            for part, c in zip(found[2:], kept_ffn, strict=True):
                part[t] = c / sum(kept_ffn) if sum(kept_ffn) else 0.0
        return found

    def graph(self, threshold: float, norm: str) -> networkx.DiGraph:
        """All edges with a weight, those between the same nodes added."""
        graph = networkx.DiGraph()
        for layer in range(self.llm.model_info().n_layers):
            before = f"I{layer - 1}" if layer else "X0"
            attention, residual, ffn, past = self.edges(layer, threshold, norm)
            for t in range(self.n_tokens):
                entering = attention[t] + residual[t] * torch.eye(self.n_tokens)[t]
                edges = [(f"{before}_{s}", f"A{layer}_{t}", weight) for s, weight in enumerate(entering)]
                edges += [(f"A{layer}_{t}", f"M{layer}_{t}", ffn[t]), (f"M{layer}_{t}", f"I{layer}_{t}", ffn[t])]
                edges += [(f"A{layer}_{t}", f"I{layer}_{t}", past[t])]
                graph.add_weighted_edges_from((a, b, float(weight)) for a, b, weight in edges)
        return graph
