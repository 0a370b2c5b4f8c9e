"""Direct logit attribution of a whole model: layers x components, in one read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from transparent_llm.analysis.attribution import LogitAttribution, LogitTerms
from transparent_llm.analysis.display.grid import grid_html
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.reading import read_all
from transparent_llm.analysis.rows import Row
from transparent_llm.analysis.token_names import TokenName, minus_of, token_of
from transparent_llm.analysis.token_strings import strings_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.table import Table

_SCALARS = ("embedding", "norm_bias", "unembed_bias", "total")


@dataclass(frozen=True, repr=False, eq=False)
class Attribution(Labelled):
    """What each part of a model added to the logit of a token, or to the difference of two. Units of logits, before a
    soft cap. `table["heads"]` and so on are the tensors; with several tokens, each has an axis "token" in front.

    `heads` [layer head], `attn_bias` [layer], `ffn` [layer] (its bias included), `embedding`, `norm_bias`,
    `unembed_bias`, and `total`, the logit as the model's last step gives it.
    """

    def sum(self) -> Float[torch.Tensor, "*token"]:
        """All parts together: `total` but for rounding."""
        heads, attn_bias, ffn = (self[name] for name in ("heads", "attn_bias", "ffn"))
        of_layers = heads.sum(dim=(-1, -2)) + attn_bias.sum(dim=-1) + ffn.sum(dim=-1)
        return of_layers + self["embedding"] + self["norm_bias"] + self["unembed_bias"]

    def top_heads(self, k: int = 10) -> list[tuple[int, int, float]]:
        """Layer, head and term of those that add most or take most, the strongest first.

        Raises:
            InvalidRequestError: it is of several tokens.
        """
        heads = self["heads"]
        if heads.ndim != 2:
            raise InvalidRequestError(f"this attribution is of {len(heads)} tokens: ask for one of them")
        order = heads.flatten().abs().sort(descending=True, stable=True).indices[: max(0, k)].tolist()
        return [(*divmod(i, heads.shape[1]), float(heads.flatten()[i])) for i in order]

    def table(self) -> Table:
        """A row for each layer, with all its heads together; of several tokens what the tensors are."""
        if self["heads"].ndim != 2:
            return super().table()
        columns = (self["heads"].sum(dim=1), self["attn_bias"], self["ffn"])
        layers = torch.stack(columns, dim=1).tolist()
        rows = [(f"layer {layer}", *(f"{part:.4f}" for part in parts)) for layer, parts in enumerate(layers)]
        rest = [(name.replace("_", " "), "", "", "", f"{float(self[name]):.4f}") for name in _SCALARS]
        return Table.of(self.title, ("", "heads", "attn bias", "ffn", ""), [*((*row, "") for row in rows), *rest])

    def picture(self) -> str:
        """A grid of layers x parts, and what belongs to no layer; of several tokens a table."""
        if self["heads"].ndim != 2:
            return self.table()._repr_html_()
        heads = self["heads"]
        parts = torch.cat([heads, self["attn_bias"][:, None], self["ffn"][:, None]], dim=1)
        grid = grid_html(
            parts,
            title=self.title,
            rows=[str(layer) for layer in range(len(parts))],
            columns=[*(f"head {head}" for head in range(heads.shape[1])), "attn bias", "ffn"],
            column_axis="part",
            value_name="logit",
            upwards=True,
        )
        rest = [(name, f"{float(self[name]):.4f}") for name in _SCALARS]
        return grid + Table.of("beside the layers", ("part", "logit"), rest)._repr_html_()


def attribution(
    llm: TransparentLlm,
    tokens: TokenName | Sequence[TokenName],
    minus: TokenName | None = None,
    *,
    batch_i: int = 0,
    pos: int = -1,
) -> Attribution:
    """What each head, bias and feed-forward part of a model added to the logit of a token (Elhage et al. 2021).

    Args:
        llm: Whose current run is looked at.
        tokens: An id, or a text that is one token, such as " Mary"; or a list of them.
        minus: Of the difference from the logit of this one. None: of the logit itself.
        batch_i: Row of the run.
        pos: Where the token is predicted; a negative one counts from the row's last token.

    Raises:
        InvalidRequestError: a text that is not one token, or an id outside the vocabulary.
        IndexOutOfRangeError: a row or position that the run does not have.
        NotSupportedError: the model has no heads, or cannot say how its logits are made.
    """
    row = Row.of(llm, batch_i)
    pos = row.position(pos)
    names = [tokens] if isinstance(tokens, str) or not isinstance(tokens, Sequence) else tokens
    if not names:
        raise InvalidRequestError("tokens are empty: name the tokens whose logits are looked at")
    ids, less = [token_of(llm, "token", name) for name in names], minus_of(llm, minus)
    n_layers = llm.model_info().n_layers
    reads: list[tuple[object, ...]] = []
    for token in ids:
        reads.append(("logit_terms", row.index, pos, token, less))
        reads += [("logit_attribution", row.index, layer, pos, token, less) for layer in range(n_layers)]
    found = read_all(llm, reads)
    step = 1 + n_layers
    tables = [_table(found[start], found[start + 1 : start + step]) for start in range(0, len(found), step)]
    text = strings_of(llm, [*ids, *([] if less is None else [less])])
    off = "" if less is None else f" - {text[less]!r}"
    is_one = names is not tokens
    said = f"{text[ids[0]]!r}" if is_one else f"{len(ids)} tokens"
    title = f"what was added to the logit of {said}{off} at row {row.index}, position {pos}"
    return _labelled(title, tables, None if is_one else [text[token] for token in ids])


def _table(terms: LogitTerms, layers: Sequence[LogitAttribution]) -> dict[str, torch.Tensor]:
    by_name = {name: torch.stack([getattr(layer, name) for layer in layers]) for name in ("heads", "attn_bias", "ffn")}
    rest = {name: getattr(terms, name) for name in _SCALARS[:-1]}
    return {name: part.cpu() for name, part in {**by_name, **rest, "total": terms.logit}.items()}


def _labelled(title: str, tables: Sequence[dict[str, torch.Tensor]], tokens: Sequence[str] | None) -> Attribution:
    n_layers, n_heads = tables[0]["heads"].shape
    axes = [Axis("layer", range(n_layers)), Axis("head", range(n_heads))]
    names = {"heads": ("layer", "head"), "attn_bias": ("layer",), "ffn": ("layer",)}
    if tokens is None:
        return Attribution(title, tuple(axes), {n: OnAxes(t, names.get(n, ())) for n, t in tables[0].items()})
    whole = {name: torch.stack([table[name] for table in tables]) for name in tables[0]}
    axes.insert(0, Axis("token", list(tokens)))
    return Attribution(title, tuple(axes), {n: OnAxes(t, ("token", *names.get(n, ()))) for n, t in whole.items()})
