"""The tokens that a place of the residual stream, or any vector, speaks for and against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.counts import checked_count
from transparent_llm.analysis.layer_lens import LayerLens
from transparent_llm.analysis.reading import read_all
from transparent_llm.analysis.scores import scores
from transparent_llm.analysis.token_strings import strings_of
from transparent_llm.analysis.vector_tokens import FindsVectorTokens, VectorTokens, vector_tokens
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.table import Table, Tabular


@dataclass(frozen=True)
class TopTokens(Tabular):
    """Tokens in falling order of their logits: the largest, then the smallest."""

    title: str
    ids: Int[torch.Tensor, "rank"]
    strings: tuple[str, ...]
    logits: Float[torch.Tensor, "rank"]
    probs: Float[torch.Tensor, "rank"] | None
    """None where the scores are those of a difference or of a direction, which no distribution belongs to."""

    gains: Int[torch.Tensor, "rank"] | None
    """How many ranks each rose since the place it was compared with; negative: it fell. None: with nothing."""

    n_top: int
    """How many of them are those with the largest logits; the others have the smallest."""

    def table(self) -> Table:
        """One line for each token."""
        more = {"prob": self.probs, "gain": self.gains}
        names = ("token", "id", "logit", *(name for name, tensor in more.items() if tensor is not None))
        return Table.of(self.title, names, map(self._line, range(len(self.strings))))

    def _line(self, i: int) -> tuple[str, ...]:
        prob = () if self.probs is None else (f"{float(self.probs[i]):.4f}",)
        gain = () if self.gains is None else (f"{int(self.gains[i]):+d}",)
        return (repr(self.strings[i]), str(int(self.ids[i])), f"{float(self.logits[i]):.4f}", *prob, *gain)


def top_tokens(
    llm: TransparentLlm,
    layer: int = -1,
    pos: int = -1,
    *,
    batch_i: int = 0,
    point: str = "out",
    minus: tuple[str, int] | None = None,
    compared_with: tuple[str, int] | None = None,
    k: int = 10,
    bottom_k: int = 0,
    normalize: str = "own",
) -> TopTokens:
    """What the residual stream at one place says of the next token; without arguments: the model's output.

    Args:
        llm: Whose current run is looked at.
        layer: Where, with `point`: "in", "after_attn" or "out".
        pos: Negative ones count from the row's last token.
        batch_i: Row of the run.
        point: See `layer`.
        minus: A point and a layer: what was added since there is looked at. `("in", 3)` with `layer=3` is what layer 3
            promotes and, with `bottom_k`, suppresses.
        compared_with: A point and a layer: `gains` says how many ranks each token rose since there.
        k: How many of the tokens with the largest logits.
        bottom_k: How many of those with the smallest.
        normalize: "own", "frozen" or "none": see `layer_lens`. Of a difference "own" is what llm-transparency-tool
            shows; it is not linear, "frozen" is.

    Raises:
        InvalidRequestError: an argument that cannot be.
        IndexOutOfRangeError: a row, layer or position that the run does not have.
        NotSupportedError: the model has no such point.
    """
    minus_point, minus_layer = minus or ("out", None)
    read = ("layer_lens", batch_i, layer, minus_layer, point, minus_point, normalize, (pos,), k, bottom_k)
    (found,) = read_all(llm, [read])
    ids = torch.cat([found.top_ids[0], found.bottom_ids[0].flip(0)])
    logits = torch.cat([found.top_logits[0], found.bottom_logits[0].flip(0)])
    gains = None
    if compared_with is not None:
        chosen = tuple(ids.tolist())
        now = ("layer_lens", batch_i, layer, minus_layer, point, minus_point, normalize, (pos,), 0, 0, chosen)
        then = ("layer_lens", batch_i, compared_with[1], None, compared_with[0], "out", normalize, (pos,), 0, 0, chosen)
        gains = _gains(*read_all(llm, [now, then]))
    of = "" if minus is None else f" - {minus[0]} {minus[1]}"
    title = f"row {batch_i}, position {pos}, layer {layer} {point}{of}"
    probs = (logits - found.logsumexp[0]).exp() if minus is None and normalize == "own" else None
    strings = strings_of(llm, ids.tolist())
    return TopTokens(title, ids, tuple(strings[int(i)] for i in ids), logits, probs, gains, k)


def top_tokens_of(
    llm: TransparentLlm,
    vector: Float[torch.Tensor, "d_model"],
    *,
    k: int = 10,
    bottom_k: int = 0,
    normalize: bool = False,
) -> TopTokens:
    """The tokens that a vector speaks for: a neuron's output, a direction of a probe.

    Args:
        llm: Whose unembedding is used; no run is needed.
        vector: Of the residual stream.
        k: How many of the tokens with the largest logits.
        bottom_k: How many of those with the smallest.
        normalize: Apply the model's last step as it is; otherwise the plain product with the unembedding.

    Raises:
        InvalidRequestError: no such vector, or more tokens than there are.
    """
    d_vocab = llm.model_info().d_vocab
    for name, count in (("k", k), ("bottom_k", bottom_k)):
        checked_count(name, count, d_vocab, "tokens in the vocabulary", least=0)
    if vector.ndim != 1:
        raise InvalidRequestError(f"this takes a vector [d_model], got shape {list(vector.shape)}")
    found = _found(llm, vector, k, bottom_k, normalize=normalize)
    ids = torch.cat([found.top_ids, found.bottom_ids.flip(0)])
    logits = torch.cat([found.top_logits, found.bottom_logits.flip(0)])
    probs = (logits - found.logsumexp).exp() if normalize else None
    strings = strings_of(llm, ids.tolist())
    return TopTokens("a vector", ids, tuple(strings[int(i)] for i in ids), logits, probs, None, k)


def _found(llm: TransparentLlm, vector: torch.Tensor, k: int, bottom_k: int, *, normalize: bool) -> VectorTokens:
    """By the server where it can, which then keeps all other scores."""
    if isinstance(llm, FindsVectorTokens):
        found = llm.vector_tokens(vector, normalize=normalize, k=k, bottom_k=bottom_k)
        if found is not None:
            return found
    return vector_tokens(scores(llm, vector[None], "own" if normalize else "none")[0], k, bottom_k)


def _gains(now: LayerLens, then: LayerLens) -> torch.Tensor:
    return (then.target_ranks - now.target_ranks)[0]
