"""Numbers of a row's output, by which one says what a change of the model does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.token_names import TokenName, token_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import Site, Vector
from transparent_llm.interventions.site import SiteKind
from transparent_llm.interventions.vector import vector_of
from transparent_llm.runtime.indexing import integer
from transparent_llm.scalars import is_one

Measure = Literal["logit", "logprob", "prob", "loss", "kl", "entropy", "projection"]

OF_TOKENS = ("logit", "logprob", "prob")
STREAMS = (SiteKind.RESIDUAL_IN, SiteKind.RESIDUAL_AFTER_ATTN, SiteKind.RESIDUAL_OUT)
"""Kinds of sites that a projection can be of."""

Tokens = TokenName | Sequence[TokenName]


@dataclass(frozen=True, eq=False)
class Metric:
    """A number of each row. `Metric(" Mary", " John")` is the difference of two logits at the last token; the functions
    of this module make those that are not of tokens."""

    token: Tokens | None = None
    """Of "logit", "logprob" and "prob": an id or a text that is one token, for all rows; or a list, one for each row
    that is measured. Where one row of a run is, the list can also have one for each row of the run."""

    minus: Tokens | None = None
    """The same number of this token less. None: nothing less."""

    pos: int = -1
    """Of each row; negative ones count from its last token. "loss" has none."""

    measure: Measure = "logit"
    """The logit, the log-probability (natural), or the probability, of the token; "loss", "kl", "entropy" and
    "projection": see the functions that make them."""

    run: TransparentLlm | None = None
    """Of "kl": an object whose current run is compared with; None: the base run."""

    site: Site | None = None
    """Of "projection"."""

    direction: Vector | None = None
    """Of "projection" [d_model]."""

    def __post_init__(self) -> None:
        checked_choice("measure", self.measure, get_args(Measure))
        for argument in ("token", "minus"):
            object.__setattr__(self, argument, _plain(argument, getattr(self, argument)))
        object.__setattr__(self, "pos", integer("pos", self.pos))
        known = {
            "token": self.measure in OF_TOKENS,
            "minus": self.measure in OF_TOKENS,
            "run": self.measure == "kl",
            "site": self.measure == "projection",
            "direction": self.measure == "projection",
        }
        for name, has_use in known.items():
            if not has_use and getattr(self, name) is not None:
                raise InvalidRequestError(f"a metric of measure {self.measure!r} has no {name}")
        needed = {"token": OF_TOKENS, "site": ("projection",), "direction": ("projection",)}
        for name, measures in needed.items():
            if self.measure in measures and getattr(self, name) is None:
                raise InvalidRequestError(f"a metric of measure {self.measure!r} needs a {name}")
        if self.site is not None and self.site.kind not in STREAMS:
            named = ", ".join(kind.value for kind in STREAMS)
            raise InvalidRequestError(f"a projection is of the residual stream, {named}, got {self.site}")

    def __str__(self) -> str:
        if self.measure in OF_TOKENS:
            less = "" if self.minus is None else f" less that of {self.minus!r}"
            return f"{self.measure} of {self.token!r}{less}"
        return f"projection on {self.site}" if self.measure == "projection" else self.measure

    def of_ids(self, llm: TransparentLlm, row: int | None = None) -> Metric:
        """With token ids for all names.

        Args:
            llm: Whose tokens they are.
            row: Of its current run: this one alone is measured. None: see `token`.

        Raises:
            InvalidRequestError: a text that is no token or several, an id outside the vocabulary, or for one row a list
                of neither one nor as many as the run has rows.
        """
        return replace(self, token=_ids(llm, "token", self.token, row), minus=_ids(llm, "minus", self.minus, row))

    def tokens_of_rows(self, n_rows: int) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """A token id for each row, and one that is less, of a metric `of_ids`.

        Raises:
            InvalidRequestError: another number of them.
        """
        token, minus = (_of_rows(name, getattr(self, name), n_rows) for name in ("token", "minus"))
        return token or (), minus


def logit_difference(token: Tokens, minus: Tokens, *, pos: int = -1) -> Metric:
    """The logit of a token less that of another."""
    return Metric(token, minus, pos)


def loss() -> Metric:
    """The mean of -log p(next token) over the tokens of a row that another one follows, in nats."""
    return Metric(measure="loss")


def kl(run: TransparentLlm | None = None, *, pos: int = -1) -> Metric:
    """KL(changed || run) of the next token's distribution, in nats, as in the report of edits; `run` has as many rows,
    each as long. None: that of what is changed, without the change."""
    return Metric(pos=pos, measure="kl", run=run)


def entropy(*, pos: int = -1) -> Metric:
    """Of the next token's distribution, in nats."""
    return Metric(pos=pos, measure="entropy")


def projection(site: Site, direction: Vector | torch.Tensor | Iterable[float], *, pos: int = -1) -> Metric:
    """The product of the residual stream at a site and a direction, whose length is made 1."""
    return Metric(pos=pos, measure="projection", site=site, direction=vector_of(direction))


def _plain(argument: str, given: Any) -> Any:
    """Ids as ints, and a list of them as a tuple."""
    if given is None or isinstance(given, str):
        return given
    return integer(argument, given) if is_one(given) else tuple(_plain(argument, name) for name in given)


def names_of(given: Tokens | None) -> tuple[TokenName, ...]:
    """One or several of a metric, as a tuple; empty where it has none."""
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (given,)


def _ids(llm: TransparentLlm, argument: str, given: Tokens | None, row: int | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    names = names_of(given)
    if row is not None and len(names) != 1:
        if len(names) != llm.batch_size():
            raise InvalidRequestError(
                f"{argument} has {len(names)} entries for one row of a run of {llm.batch_size()}: give one, or one for "
                "each row of the run"
            )
        names = names[row : row + 1]
    return tuple(token_of(llm, argument, name) for name in names)


def _of_rows(name: str, given: Tokens | None, n_rows: int) -> tuple[int, ...] | None:
    if given is None:
        return None
    ids = names_of(given)
    if len(ids) not in (1, n_rows):
        raise InvalidRequestError(f"{name} has {len(ids)} entries for {n_rows} rows: give one for all, or one for each")
    made = [int(token) for token in ids]
    return tuple(made * n_rows if len(made) == 1 else made)
