"""Analyses of one layer with the row's tokens beside them, and of the heads of all layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float

from transparent_llm.analysis.attribution import NeuronAttribution
from transparent_llm.analysis.contributions import NeuronContributions
from transparent_llm.analysis.display.heatmap import attention_html
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.reading import read_all
from transparent_llm.analysis.rows import Row, layer_of
from transparent_llm.analysis.token_names import TokenName, minus_of, token_of
from transparent_llm.analysis.token_strings import strings_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.table import Table


@dataclass(frozen=True, repr=False, eq=False)
class OfHeads(Labelled):
    """A number for each head and each pair of positions of a row, without padding; a picture shows all heads."""

    def picture(self) -> str:
        """Heads side by side."""
        name, labelled = next(iter(self.tensors.items()))
        order = [labelled.axes.index("head"), *(i for i, axis in enumerate(labelled.axes) if axis != "head")]
        down, across = (self._axis(labelled.axes[i]) for i in order[1:])
        shown = labelled.tensor.permute(order)
        tokens = [axis.labels["token"] for axis in (down, across)]
        return attention_html(shown, title=self.title, queries=tokens[0], keys=tokens[1], value_name=name)


@dataclass(frozen=True, repr=False, eq=False)
class HeadScores(Labelled):
    """How much each head behaves like a kind of head."""

    @property
    def scores(self) -> Float[torch.Tensor, "layer head"]:
        """As `head_scores` defines them."""
        return next(iter(self.tensors.values())).tensor

    def top(self, k: int = 10) -> list[tuple[int, int, float]]:
        """Layer, head and score of those with the highest scores, in falling order; last those that are NaN."""
        flat, n_heads = self.scores.flatten(), self.scores.shape[1]
        order = flat.nan_to_num(nan=-torch.inf).sort(descending=True, stable=True).indices[: max(0, k)].tolist()
        return [(*divmod(i, n_heads), float(flat[i])) for i in order]

    def table(self) -> Table:
        """The heads with the highest scores."""
        rows = [(f"layer {layer}", f"head {head}", f"{score:.4f}") for layer, head, score in self.top()]
        return Table.of(self.title, ("", "", "score"), rows)


def attention_of(llm: TransparentLlm, layer: int, batch_i: int = 0) -> OfHeads:
    """Attention probabilities of all heads of a layer: `attention` [head query_pos key_pos], without padding.

    Raises:
        IndexOutOfRangeError: row or layer.
        NotSupportedError: the layer has no heads.
    """
    return _of_heads(llm, "attention_matrices", "attention", ("head", "query_pos", "key_pos"), layer, batch_i)


def value_weighted_norms_of(llm: TransparentLlm, layer: int, batch_i: int = 0) -> OfHeads:
    """Length of what each head of a layer brought from each source to each target, in units of the residual stream:
    `norm` [head target source], without padding (Kobayashi et al. 2020).

    Raises:
        IndexOutOfRangeError: row or layer.
        NotSupportedError: the layer has no heads.
    """
    return _of_heads(llm, "value_weighted_norms", "norm", ("head", "target", "source"), layer, batch_i)


def head_scores_of(llm: TransparentLlm, kind: str = "induction", batch_i: int = 0) -> HeadScores:
    """How much each head of a model behaves like a known kind of head on a row: [layer head].

    Args:
        llm: Whose current run is looked at.
        kind: "previous", "first", "self", "duplicate" or "induction": the mean attention to such keys; or "entropy",
            in nats.
        batch_i: Row of the run.

    Raises:
        InvalidRequestError: an unknown kind.
        IndexOutOfRangeError: the run has no such row.
        NotSupportedError: a layer has no heads.
    """
    row = Row.of(llm, batch_i)
    found = read_all(llm, [("head_scores", row.index, layer, kind) for layer in range(llm.model_info().n_layers)])
    scores = torch.stack(list(found)).cpu()
    axes = (Axis("layer", range(scores.shape[0])), Axis("head", range(scores.shape[1])))
    return HeadScores(f"{kind} of heads, row {row.index}", axes, {kind: OnAxes(scores, ("layer", "head"))})


def attn_contributions_of(llm: TransparentLlm, layer: int, batch_i: int = 0, *, norm: str = "l1") -> OfHeads:
    """What each source gave each target through each head, as a share of the stream after attention: `heads`
    [target source head] and `residual` [target], without padding; over heads and sources they sum to 1 (Ferrando and
    Voita 2024).

    Args:
        llm: Whose current run is looked at.
        layer: A negative one counts from the last.
        batch_i: Row of the run.
        norm: "l1", as the definition has it, or "l2", which is less work.

    Raises:
        InvalidRequestError: no such norm.
        IndexOutOfRangeError: row or layer.
        NotSupportedError: the layer has no heads.
    """
    row, at = Row.of(llm, batch_i), layer_of(llm, layer)
    (found,) = read_all(llm, [("attn_contributions", row.index, at, norm)])
    n = row.n_tokens
    heads, residual = found.heads[:n, :n].cpu(), found.residual[:n].cpu()
    words = row.words(llm)
    axes = (_pos("target", words), _pos("source", words), Axis("head", range(heads.shape[2])))
    tensors = {"heads": OnAxes(heads, ("target", "source", "head")), "residual": OnAxes(residual, ("target",))}
    return OfHeads(f"contributions of heads of layer {at}, row {row.index}", axes, tensors)


def source_attribution_of(
    llm: TransparentLlm,
    layer: int,
    token: TokenName,
    minus: TokenName | None = None,
    *,
    batch_i: int = 0,
    pos: int = -1,
) -> Labelled:
    """What each head of a layer brought from each position to one, as part of the logit of a token, or of its
    difference from that of `minus`: `logit` [head source], without padding.

    Args:
        llm: Whose current run is looked at.
        layer: A negative one counts from the last.
        token: An id, or a text that is one token.
        minus: The same; None: no difference.
        batch_i: Row of the run.
        pos: Where the token is predicted; a negative one counts from the row's last token.

    Raises:
        InvalidRequestError: a text that is not one token, or an id outside the vocabulary.
        IndexOutOfRangeError: row, layer or position.
        NotSupportedError: the layer has no heads, or the model cannot say how its logits are made.
    """
    row, at = Row.of(llm, batch_i), layer_of(llm, layer)
    ids = (token_of(llm, "token", token), minus_of(llm, minus))
    place = row.position(pos)
    (found,) = read_all(llm, [("source_attribution", row.index, at, place, *ids)])
    brought = found[:, : row.n_tokens].cpu()
    text = strings_of(llm, [i for i in ids if i is not None])
    said = " - ".join(repr(text[i]) for i in ids if i is not None)
    title = f"what heads of layer {at} brought to the logit of {said} at row {row.index}, position {place}"
    axes = (Axis("head", range(len(brought))), _pos("source", row.words(llm)))
    return Labelled(title, axes, {"logit": OnAxes(brought, ("head", "source"))})


def neuron_attribution_of(
    llm: TransparentLlm,
    layer: int,
    token: TokenName,
    minus: TokenName | None = None,
    *,
    k: int = 10,
    batch_i: int = 0,
    pos: int = -1,
) -> NeuronAttribution:
    """The neurons of a layer that added most to the logit of a token, or took most from it. Arguments and errors as
    `source_attribution`; `k` is how many."""
    row = Row.of(llm, batch_i)
    ids = (token_of(llm, "token", token), minus_of(llm, minus))
    read = ("neuron_attribution", row.index, layer_of(llm, layer), row.position(pos), *ids, k)
    found: NeuronAttribution = read_all(llm, [read])[0]
    return found


def neuron_contributions_of(
    llm: TransparentLlm, layer: int, batch_i: int = 0, pos: int = -1, *, k: int = 10, norm: str = "l1"
) -> NeuronContributions:
    """The neurons of a layer that contribute most to the stream that leaves it at a position, as shares of it.

    Raises:
        InvalidRequestError: no such norm, or `k` is more than there are.
        IndexOutOfRangeError: row, layer or position.
        NotSupportedError: neurons cannot be told apart.
    """
    row = Row.of(llm, batch_i)
    read = ("neuron_contributions", row.index, layer_of(llm, layer), row.position(pos), k, norm)
    found: NeuronContributions = read_all(llm, [read])[0]
    return found


def _of_heads(
    llm: TransparentLlm, read: str, name: str, axes: tuple[str, str, str], layer: int, batch_i: int
) -> OfHeads:
    row, at = Row.of(llm, batch_i), layer_of(llm, layer)
    (found,) = read_all(llm, [(read, row.index, at)])
    tensor = found[:, : row.n_tokens, : row.n_tokens].cpu()
    words = row.words(llm)
    described = (Axis("head", range(len(tensor))), *(_pos(axis, words) for axis in axes[1:]))
    return OfHeads(f"{name} of layer {at}, row {row.index}", described, {name: OnAxes(tensor, axes)})


def _pos(name: str, words: list[str]) -> Axis:
    return Axis(name, range(len(words)), {"token": words})
