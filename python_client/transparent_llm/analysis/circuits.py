"""Circuits of attention heads, read from weights alone: no run is needed.

Elhage et al., A Mathematical Framework for Transformer Circuits (2021), https://transformer-circuits.pub/2021/framework.
Vectors are rows here: a head reads x of the residual stream, and writes attention times x @ v @ o. Its OV circuit is
v @ o [d_model d_model], its QK circuit q @ k.T: the score of a target t and a source s is t @ q @ k.T @ s, up to the
factor that the model multiplies scores by.

What these weights leave out: the norm before attention (its gain is not folded in, as TransformerLens does where it
folds; its divisor depends on a run), norms after attention, biases, rotary embeddings and other functions of positions,
norms of queries and keys. Scores of the QK circuit are those of content at distance 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.display.grid import grid_html
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.of_layer import HeadScores
from transparent_llm.analysis.uncut import require_uncut
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.quoting import kind_of
from transparent_llm.runtime.indexing import integer
from transparent_llm.table import Table

CIRCUITS = ("head_weights", "composition_scores", "copying_scores")
"""What can be read of heads without a run."""

KINDS = ("q", "k", "v")
OF_HEAD = ("ov", "qk")
"""The circuits of one head."""


class HeadWeights(NamedTuple):
    """The weights of one head, in the model's dtype."""

    q: Float[torch.Tensor, "d_model d_head"]
    """To its queries: x @ q."""

    k: Float[torch.Tensor, "d_model d_head"]
    """To the keys that it reads, which heads may share (grouped queries)."""

    v: Float[torch.Tensor, "d_model d_head"]
    """To the values that it reads, which heads may share."""

    o: Float[torch.Tensor, "d_head d_model"]
    """From these to the residual stream."""


@runtime_checkable
class ReadsCircuits(Protocol):
    """A model whose weights of heads can be read: the remote object, and the one in process."""

    def read_circuits(self, name: str, *arguments: int | str, axes: Mapping[str, slice]) -> torch.Tensor | Any:
        """What the read of that name gives, cut: a tensor, or a tuple of several."""


@dataclass(frozen=True, repr=False, eq=False)
class CompositionScores(Labelled):
    """How much of what each head writes each later head reads."""

    @property
    def scores(self) -> Float[torch.Tensor, "layer head later_layer later_head"]:
        """As `composition_scores` defines them; NaN where the first head is not in an earlier layer."""
        return next(iter(self.tensors.values())).tensor

    def top(self, k: int = 10) -> list[tuple[tuple[int, int], tuple[int, int], float]]:
        """(layer, head), later (layer, head) and score of the pairs that compose most, in falling order."""
        flat = self.scores.nan_to_num(nan=-1.0).flatten()
        order = flat.sort(descending=True, stable=True).indices[: max(0, k)]
        order = order[flat[order] >= 0]
        names = [self._axis(axis).coordinates for axis in self.tensors["score"].axes]
        found = []
        for flat_index in order.tolist():
            places = torch.unravel_index(torch.tensor(flat_index), self.scores.shape)
            layer, head, later, later_head = (int(names[axis][int(place)]) for axis, place in enumerate(places))
            found.append(((layer, head), (later, later_head), float(flat[flat_index])))
        return found

    def table(self) -> Table:
        """The pairs of heads that compose most."""
        rows = [(f"{a[0]}.{a[1]}", f"{b[0]}.{b[1]}", f"{score:.4f}") for a, b, score in self.top()]
        return Table.of(self.title, ("head", "later head", "score"), rows)

    def picture(self) -> str:
        """A heat map: a row for each head, a column for each later one; both are called layer.head."""
        n_rows = self.scores.shape[0] * self.scores.shape[1]
        names = [self._heads("layer", "head"), self._heads("later_layer", "later_head")]
        return grid_html(
            self.scores.reshape(n_rows, -1),
            title=self.title,
            rows=names[0],
            columns=names[1],
            row_axis="head",
            column_axis="later head",
            value_name="score",
        )

    def _heads(self, layer: str, head: str) -> list[str]:
        heads = self._axis(head).coordinates
        return [f"{at}.{of_layer}" for at in self._axis(layer).coordinates for of_layer in heads]


def head_weights(llm: TransparentLlm, layer: int, head: int) -> HeadWeights:
    """The weights of one head: `v @ o` is its OV circuit, `q @ k.T` its QK circuit. They are as the model has them: see
    above for what is not in them. No run is needed.

    Args:
        llm: Any model whose weights can be read.
        layer: Of the head. Negative ones count from the end.
        head: A query head. Keys and values are those that it shares with others, if it does.

    Raises:
        IndexOutOfRangeError: layer or head.
        NotSupportedError: the layer has no heads with such weights (latent attention, no attention), or the model is
            quantized or lies partly on disk.
    """
    read = _reader(llm).read_circuits("head_weights", integer("layer", layer), integer("head", head), axes={})
    return HeadWeights(*read)


def composition_scores(
    llm: TransparentLlm, kind: str = "k", *, layers: slice | None = None, later_layers: slice | None = None
) -> CompositionScores:
    """How much of what each head writes each later head reads: `score` [layer head later_layer later_head], float32.

    ||A B|| / (||A|| ||B||) in Frobenius norms, where A = v @ o of the earlier head and, of the later one, B is q @ k.T
    (kind "q"), k @ q.T ("k") or v @ o ("v"), as Elhage et al. (2021) define them and TransformerLens'
    `all_composition_scores` computes them of weights that are not folded. 0: it reads nothing of that; random weights
    have about 1 / sqrt(d_model). NaN where the first head is not in an earlier layer (TransformerLens has 0 there), and
    where one of the two products is 0. Norms, biases and rotary embeddings are left out.

    The work is about d_model cubed for each pair of layers, which a server does in turns with what others ask for. Of
    the largest models, ask for some layers at a time.

    Args:
        llm: Any model whose weights can be read; no run is needed.
        kind: Which input of the later head: "q", "k" or "v".
        layers: Of the earlier heads. None: all.
        later_layers: Of the later heads. None: all.

    Raises:
        InvalidRequestError: another kind, or something else than a slice.
        NotSupportedError: as `head_weights`, of any layer.
        TooLargeError: more work than the server does for one answer.
    """
    checked_choice("kind", kind, KINDS)
    n_layers, n_heads = llm.model_info().n_layers, llm.model_info().n_heads
    given = {"layer": layers, "later_layer": later_layers}
    axes = {axis: _checked_slice(axis, part) for axis, part in given.items() if part is not None}
    tensor = _reader(llm).read_circuits("composition_scores", kind, axes=axes)
    of_layers = [Axis(axis, range(n_layers)[axes.get(axis, slice(None))]) for axis in given]
    described = (of_layers[0], Axis("head", range(n_heads)), of_layers[1], Axis("later_head", range(n_heads)))
    scores = {"score": OnAxes(tensor, tuple(axis.name for axis in described))}
    return CompositionScores(f"{kind.upper()}-composition of heads", described, scores)


def copying_scores(llm: TransparentLlm, circuit: str = "ov") -> HeadScores:
    """How much each head copies, or attends to tokens that are the same as its own: `score` [layer head], from -1 to 1.

    sum(Re(e)) / sum(|e|) over the eigenvalues e of a head's circuit from tokens to tokens [d_vocab d_vocab] (Elhage et
    al. 2021, which looks at both). "ov": of W_E v o W_U; near 1 a head makes what it attends to more likely, near -1
    less. "qk", the matching score: of W_E q k.T W_E.T; near 1 a head attends to tokens that are the same as the one it
    is at, near -1 it turns from them. W_E and W_U are as the model has them: gains of norms are not folded in. What the
    head reads of earlier heads is not part of it (an induction head matches by that, see `composition_scores`), nor are
    positions: neither embeddings of them nor rotations, which are as if all tokens stood at one place. NaN where all
    eigenvalues are 0. No run is needed.

    Args:
        llm: Any model whose weights can be read.
        circuit: "ov" or "qk".

    Raises:
        InvalidRequestError: another circuit.
        NotSupportedError: as `head_weights`, of any layer; or its embedding is not of d_model numbers.
        TooLargeError: more work than the server does for one answer.
    """
    checked_choice("circuit", circuit, OF_HEAD)
    tensor = _reader(llm).read_circuits("copying_scores", circuit, axes={})
    axes = (Axis("layer", range(tensor.shape[0])), Axis("head", range(tensor.shape[1])))
    title = "copying scores of heads" if circuit == "ov" else "matching scores of heads"
    return HeadScores(title, axes, {"score": OnAxes(tensor, ("layer", "head"))})


def _reader(llm: TransparentLlm) -> ReadsCircuits:
    require_uncut(llm)
    if not isinstance(llm, ReadsCircuits):
        raise NotSupportedError(f"{type(llm).__name__} has no weights of heads that can be read")
    return llm


def _checked_slice(axis: str, part: object) -> slice:
    if not isinstance(part, slice):
        raise InvalidRequestError(f"{axis}s must be a slice, such as slice(0, 4), got {kind_of(part)}")
    if part.step is not None and integer("step", part.step) < 1:
        raise InvalidRequestError(f"{axis}s must go forward: its step is {part.step}, at least 1 is needed")
    return part
