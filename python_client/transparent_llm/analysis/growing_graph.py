"""A contribution graph that grows by a row with each new token: what flowed to the position that chose it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from transparent_llm.analysis.contributions import checked_threshold
from transparent_llm.analysis.distances import checked_norm
from transparent_llm.analysis.edge import Edge
from transparent_llm.analysis.reading import read_all, require_feature
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.generation import Generating, NextToken
from transparent_llm.interventions import Intervention
from transparent_llm.quoting import kind_of
from transparent_llm.table import Table, Tabular

_AT_ONCE = 256
"""Rows that are asked for together."""

_How = tuple[float, bool, str]
"""Threshold, renormalize and norm."""


@dataclass(frozen=True, eq=False, repr=False)
class GraphRow(Tabular):
    """All edges of the contribution graph into the nodes of one position; of a causal model no later token adds one."""

    chosen: NextToken
    """The new token, which was chosen at this position."""

    tokens: tuple[str, ...]
    """The text of each position up to this one, which is the last."""

    attention: Float[torch.Tensor, "layer source"]
    """From each position to the stream after attention, over all heads."""

    attention_residual: Float[torch.Tensor, "layer"]
    """Of the stream that entered the layer."""

    ffn: Float[torch.Tensor, "layer"]
    """Of the feed-forward part; both edges of M have it."""

    ffn_residual: Float[torch.Tensor, "layer"]
    """From the stream after attention, past the feed-forward part."""

    threshold: float
    renormalize: bool
    norm: str

    @property
    def pos(self) -> int:
        """The position."""
        return len(self.tokens) - 1

    def edges(self) -> list[Edge]:
        """Those that count, as `ContributionGraph.edges` names and counts them, layer after layer."""
        least, t = 0.0 if self.renormalize else self.threshold, self.pos
        merged, found = self.attention.clone(), list[Edge]()
        merged[:, t] += self.attention_residual
        for layer, weights in enumerate(merged.tolist()):
            after, ffn, out = (f"{name}{layer}_{t}" for name in "AMI")
            entering = "X0" if layer == 0 else f"I{layer - 1}"
            for s, weight in enumerate(weights):
                kind = "residual" if s == t else "attention"
                found += [Edge(f"{entering}_{s}", after, weight, kind, layer, s, t)] if weight > least else []
            for weight, kind, pairs in (
                (float(self.ffn[layer]), "ffn", ((after, ffn), (ffn, out))),
                (float(self.ffn_residual[layer]), "ffn_residual", ((after, out),)),
            ):
                found += [Edge(*pair, weight, kind, layer, t, t) for pair in pairs] if weight > least else []
        return found

    def table(self) -> Table:
        """A line for each layer, the last at the top: the sources that count most, and the rest of what enters."""
        lines = [(layer, *self._line(layer)) for layer in reversed(range(self.attention.shape[0]))]
        title = f"what flowed to {self.tokens[-1]!r} at {self.pos}, which chose {self.chosen.text!r}"
        return Table.of(title, ("layer", "attention from", "stream", "ffn", "past ffn"), lines)

    def __repr__(self) -> str:
        return f"<GraphRow of position {self.pos}, {self.attention.shape[0]} layers, {len(self.edges())} edges>"

    def _line(self, layer: int) -> tuple[str, ...]:
        least = 0.0 if self.renormalize else self.threshold
        weights, order = self.attention[layer].sort(descending=True)
        best = [(weight, s) for weight, s in zip(weights[:3].tolist(), order.tolist(), strict=False) if weight > least]
        of_attention = ", ".join(f"{self.tokens[s]!r} {weight:.2f}" for weight, s in best)
        rest = (self.attention_residual, self.ffn, self.ffn_residual)
        return of_attention, *(f"{part[layer]:.2f}" for part in rest)


def growing_graph(
    llm: TransparentLlm,
    prompt: str | None,
    max_new_tokens: int = 20,
    *,
    threshold: float = 0.04,
    renormalize: bool = True,
    norm: str = "l1",
    live: bool = False,
    edits: Sequence[Intervention] = (),
    **settings: Any,
) -> Iterator[GraphRow]:
    """Go on with a text, and give for each new token the row of the contribution graph of the position that chose it.

    The rows are those of `llm.contribution_graph` of the run of what was written, which is current in the end. Its work
    grows with the square of the text; that of a row does not.

    Args:
        llm: Whose model it is.
        prompt: A sentence. None: `messages` are among the settings.
        max_new_tokens: At most so many rows.
        threshold: As `contribution_graph` has it.
        renormalize: As there.
        norm: As there.
        live: False: the rows come when the text is whole, of the run that is made then anyway. True: each comes with
            its token, of a run of the text so far, for which the model reads all of it once more; shares then differ
            by the few millionths that parts without attention have, as later tokens are no sources yet.
        edits: As `generate` takes them.
        settings: Others of `generate`, such as `messages`, `temperature`, `seed` and `stop`.

    Raises:
        InvalidRequestError: several prompts; `live` of messages; or as `contribution_graph` and `generate`.
        NotSupportedError: `llm` cannot go on with texts, or its server is too old.
    """
    how = (checked_threshold(threshold), bool(renormalize), checked_norm(norm))
    if not isinstance(llm, Generating):
        raise NotSupportedError(f"{type(llm).__name__} cannot go on with texts")
    if prompt is not None and not isinstance(prompt, str):
        raise InvalidRequestError(f"a graph is of one text: prompt is a sentence, got {kind_of(prompt)}")
    if live and prompt is None:
        raise InvalidRequestError("live rows are of a prompt: what a template makes of messages is known in the end")
    require_feature(llm, "contribution_edges_to")
    steps = llm.generate(prompt, max_new_tokens, edits=edits, **settings)
    new = (token for step in steps for token in step.tokens if token is not None)
    if not live:
        return _afterwards(llm, new, how)
    made = llm._own_edits.before(edits)  # a copy is in no block
    return _live(llm, llm.to_tokens(str(prompt)).tolist(), new, made, how)


def _afterwards(llm: Any, coming: Iterator[NextToken], how: _How) -> Iterator[GraphRow]:
    new, own = list(coming), llm.copy()
    first = own.tokens().shape[1] - len(new)
    for start in range(0, len(new), _AT_ONCE):
        chosen = new[start : start + _AT_ONCE]
        yield from _rows(own, first + start, chosen, how)


def _live(
    llm: Any, text: list[int], coming: Iterator[NextToken], edits: Sequence[Intervention], how: _How
) -> Iterator[GraphRow]:
    own = llm.copy()
    for token in coming:
        own.run_tokens([text], edits=edits)
        yield from _rows(own, len(text) - 1, [token], how)
        text = [*text, token.token_id]


def _rows(llm: Any, first: int, chosen: Sequence[NextToken], how: _How) -> Iterator[GraphRow]:
    """Of the current run, from a position on."""
    at, n_layers = tuple(range(first, first + len(chosen))), llm.model_info().n_layers
    layers = read_all(llm, [("contribution_edges_to", 0, layer, at, *how) for layer in range(n_layers)])
    attention, *rest = (torch.stack([part.cpu() for part in parts]) for parts in zip(*layers, strict=True))
    words = tuple(llm.tokens_to_strings(llm.tokens()[0]))
    for number, (pos, token) in enumerate(zip(at, chosen, strict=True)):
        residual, ffn, past = (part[:, number] for part in rest)
        yield GraphRow(token, words[: pos + 1], attention[:, number, : pos + 1], residual, ffn, past, *how)
