"""Circuits of heads, from weights alone: Elhage et al. (2021), A Mathematical Framework for Transformer Circuits.

A product of four factors is never built. Of ||V O N F^T|| (Frobenius; V, N and F are [d_model d_head], O is
[d_head d_model]) the square is the sum of (V^T V) C * C (F^T F) with C = O N [d_head d_head]. C is made in float32 at
least, the rest in float64, so that nothing but C rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.derived.unsupported import unsupported
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled
from transparent_llm_server.models.forward.head_weights import HeadWeights, UnreadableError
from transparent_llm_server.models.values.filled import Filled
from transparent_llm_server.models.values.value import Step, Value

_WORK_OF_STEP = 2 * 10**8
"""Multiply-adds after which others have their turn, where a step is of several heads."""

_TOKENS = 4096
"""Of the vocabulary, in one product. Never a setting, as it decides the last bits."""


class CircuitReader:
    """Reads the weights of a model's heads while nobody changes them."""

    def __init__(self, model: BridgedModel, method: str) -> None:
        if model.materializes:
            raise unsupported(model, method, 0, "is quantized, or offloaded, and its weights are not read as a whole")
        self.model, self._method = model, method
        self._generation = model.edits.check()

    def weights(self, layer: int) -> HeadWeights:
        """Of a layer.

        Raises:
            NotSupportedError: it has none that can be read, or for another number of heads than the model.
            NotFoundError: MODEL_CHANGED: the model was edited since this was made.
        """
        self.model.edits.require_unchanged(self._generation)
        of_layer = self.model.layers[layer]
        if not of_layer.has_heads:
            raise unsupported(self.model, self._method, layer, "has no attention heads")
        try:
            found = of_layer.head_weights()
        except UnreadableError as error:
            raise unsupported(self.model, self._method, layer, str(error)) from error
        if len(found.q) != self.model.n_heads:
            raise unsupported(self.model, self._method, layer, f"has {len(found.q)} heads, not {self.model.n_heads}")
        return found

    def require_all(self) -> None:
        """Refuse at once a model of which some layers have no heads, or the first one no such weights."""
        for index, layer in enumerate(self.model.layers):
            if not layer.has_heads:
                raise unsupported(self.model, self._method, index, "has no attention heads")
        self.weights(0)


@dataclass(frozen=True)
class _Writers:
    """What the heads of a layer write: A = V O of each."""

    o: torch.Tensor
    grams: list[torch.Tensor]
    """V^T V of each of the value heads."""

    kv_heads: list[int]

    def norm(self, head: int) -> torch.Tensor:
        """||A|| of one."""
        o = self.o[head].double()
        return (self.gram(head) * (o @ o.T)).sum().clamp(min=0).sqrt()

    def gram(self, head: int) -> torch.Tensor:
        """V^T V of a head."""
        return self.grams[self.kv_heads[head]]


@dataclass(frozen=True)
class _Readers:
    """What the heads of a layer read: B = N F^T of each."""

    near: torch.Tensor
    """N of all heads, one after the other [d_model head*d_head]."""

    grams: torch.Tensor
    """F^T F [head d_head d_head]."""

    norms: torch.Tensor
    """||B|| [head]."""


class CompositionScores(Filled):
    """[layer head later_layer later_head], or a part of it: whatever part, each head of a layer is multiplied with all
    heads of a later one, so that a part has the bits of the whole."""

    def __init__(self, reader: CircuitReader, kind: str, ranges: Sequence[range] | None = None) -> None:
        n_layers, n_heads = len(reader.model.layers), reader.model.n_heads
        super().__init__(ranges or [range(n_layers), range(n_heads), range(n_layers), range(n_heads)])
        self._reader, self._kind = reader, kind
        self._d_head = reader.model.layers[0].heads.d_head
        self._writers: _Writers | None = None
        self._readers: _Readers | None = None
        self.may_be_interrupted = True

    @property
    def work(self) -> int:  # type: ignore[override]  # of a part it is that of the part
        """Multiply-adds of all pairs that it has."""
        layers, heads, later_layers, _ = self._ranges
        pairs = sum(first < second for first in layers for second in later_layers)
        return pairs * len(heads) * self._work_of_head

    @property
    def _work_of_head(self) -> int:
        """Of one head with a later layer."""
        model, d_head = self._reader.model, self._d_head
        return model.n_heads * d_head * d_head * (model.d_model + 2 * d_head)

    def _of(self, ranges: Sequence[range]) -> Value:
        return CompositionScores(self._reader, self._kind, ranges)

    def _all_steps(self) -> Iterator[Step]:
        layers, heads, later_layers, _ = self._ranges
        at_once = max(1, _WORK_OF_STEP // self._work_of_head)
        for later_at, later in enumerate(later_layers):
            earlier = [(at, layer) for at, layer in enumerate(layers) if layer < later]
            if not earlier:
                continue
            yield partial(self._read_later, later)
            for at, layer in earlier:
                yield partial(self._read_earlier, layer)
                for start in range(0, len(heads), at_once):
                    yield partial(self._fill, at, later_at, range(len(heads))[start : start + at_once])

    def _read_later(self, layer: int) -> None:
        found = self._reader.weights(layer)
        of_heads = [found.kv_head(head) for head in range(len(found.q))]
        if self._kind == "q":
            near, far = list(found.q), [found.k[i] for i in of_heads]
        elif self._kind == "k":
            near, far = [found.k[i] for i in of_heads], list(found.q)
        else:
            near, far = [found.v[i] for i in of_heads], [o.T for o in found.o]
        grams = torch.stack([_gram(one) for one in far])
        squares = torch.stack([(_gram(one) * gram).sum() for one, gram in zip(near, grams, strict=True)])
        together = torch.cat([wide(one) for one in near], dim=1)
        self._readers = _Readers(together, grams, squares.clamp(min=0).sqrt())

    def _read_earlier(self, layer: int) -> None:
        found = self._reader.weights(layer)
        of_heads = [found.kv_head(head) for head in range(len(found.q))]
        self._writers = _Writers(found.o, [_gram(one) for one in found.v], of_heads)

    def _fill(self, at: int, later_at: int, places: range) -> None:
        assert self._writers is not None
        assert self._readers is not None
        heads, later_heads = self._ranges[1], self._ranges[3]
        for place in places:
            raise_if_cancelled()
            scores = _scores(self._writers, heads[place], self._readers)
            self._filled[at, place, later_at] = scores.float().cpu()[list(later_heads)]


def _scores(writers: _Writers, head: int, readers: _Readers) -> torch.Tensor:
    """Of one head with all heads of a later layer [later_head]; NaN where nothing is written or read."""
    device, n_heads = readers.near.device, len(readers.norms)
    o = wide(writers.o[head].to(device))
    d_head = o.shape[0]
    c = (o @ readers.near).reshape(d_head, n_heads, d_head).transpose(0, 1).double()
    squares = ((writers.gram(head).to(device) @ c) * (c @ readers.grams)).sum(dim=(1, 2)).clamp(min=0)
    return squares.sqrt() / (writers.norm(head).to(device) * readers.norms)


def _gram(factor: torch.Tensor) -> torch.Tensor:
    """factor^T factor of [d_model d_head], in float64."""
    exact = factor.double()
    return exact.T @ exact


class CopyingScores(Filled):
    """[layer head], or a part of it. The eigenvalues that are not 0 of W_E V O W_U, which is as large as the vocabulary
    squared, are those of O (W_U W_E) V [d_head d_head]; of W_E Q K^T W_E^T those of K^T (W_E^T W_E) Q."""

    def __init__(self, reader: CircuitReader, circuit: str, ranges: Sequence[range] | None = None) -> None:
        super().__init__(ranges or [range(len(reader.model.layers)), range(reader.model.n_heads)])
        model, wanted = reader.model, [reader.model.d_vocab, reader.model.d_model]
        for weights in model.vocabulary():
            if list(weights.shape) != wanted:
                why = f"embeds tokens by weights {list(weights.shape)}, not {wanted}"
                raise unsupported(model, "copying_scores", 0, why)
        self._reader, self._circuit, self._around = reader, circuit, torch.empty(0)
        self.may_be_interrupted = True

    @property
    def work(self) -> int:  # type: ignore[override]  # of a part it is that of the part
        """Multiply-adds."""
        model = self._reader.model
        d_head = model.layers[0].heads.d_head
        of_head = d_head * model.d_model * (model.d_model + d_head) + 30 * d_head**3
        return model.d_vocab * model.d_model**2 + self.shape[0] * self.shape[1] * of_head

    def _of(self, ranges: Sequence[range]) -> Value:
        return CopyingScores(self._reader, self._circuit, ranges)

    def _all_steps(self) -> Iterator[Step]:
        model = self._reader.model
        for start in range(0, model.d_vocab, _TOKENS):
            yield partial(self._add, range(start, min(start + _TOKENS, model.d_vocab)))
        for at, layer in enumerate(self._ranges[0]):
            for place in range(len(self._ranges[1])):
                yield partial(self._fill, at, layer, place)

    def _add(self, tokens: range) -> None:
        """W_U W_E or W_E^T W_E [d_model d_model] of some tokens: a vector goes out by one and comes in by the other."""
        raise_if_cancelled()
        part = slice(tokens.start, tokens.stop)
        embedding, unembedding = (weights[part] for weights in self._reader.model.vocabulary())
        out = wide(unembedding if self._circuit == "ov" else embedding)
        product = out.T @ wide(embedding.to(out.device))
        self._around = self._around + product if tokens.start else product

    def _fill(self, at: int, layer: int, place: int) -> None:
        raise_if_cancelled()
        found, head = self._reader.weights(layer), self._ranges[1][place]
        kv_head = found.kv_head(head)
        if self._circuit == "ov":
            out, into = wide(found.o[head]), wide(found.v[kv_head])
        else:
            out, into = wide(found.k[kv_head]).T, wide(found.q[head])
        small = out @ (self._around.to(out) @ into)
        eigenvalues = torch.linalg.eigvals(small.double().cpu())
        self._filled[at, place] = (eigenvalues.real.sum() / eigenvalues.abs().sum()).float()
