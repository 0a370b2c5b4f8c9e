"""What was found in a data set: places with the text around them, as examples, cards, a table or a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.dataset.file import identity_of
from transparent_llm.analysis.dataset.measured import Measured
from transparent_llm.analysis.display.markup import figure
from transparent_llm.analysis.display.scale import Scale
from transparent_llm.analysis.display.tokens import coloured_tokens_html
from transparent_llm.analysis.token_strings import strings_of
from transparent_llm.analysis.top_tokens import top_tokens_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.extras import missing
from transparent_llm.quoting import kind_of, quoted
from transparent_llm.table import Table, Tabular

if TYPE_CHECKING:
    import pandas

MOST_CARDS = 20
"""That a notebook shows."""

_PROMOTED = 6
_IDS_AT_ONCE = 1024
"""That a server is asked the texts of in one call."""


@dataclass(frozen=True)
class Example:
    """One place of a data set, with the text around it."""

    value: float
    text: int
    """Which of the texts, from 0."""

    pos: int
    """Which token of it."""

    tokens: tuple[str, ...]
    """It and its neighbours."""

    values: tuple[float, ...]
    """The item's value at each of these."""

    peak: int
    """Which of them it is."""


@dataclass(frozen=True, repr=False, eq=False)
class TopActivations(Tabular):
    """The places of each item in falling order. `print` tells the best of each, a notebook shows cards."""

    measured: Measured
    items: tuple[int, ...]
    """Numbers of neurons or heads, or of directions in their order."""

    values: Float[torch.Tensor, "item rank"]
    """-inf where the data set has no more places."""

    texts: Int[torch.Tensor, "item rank"]
    """-1 where there is no place, as in `positions`."""

    positions: Int[torch.Tensor, "item rank"]
    context_tokens: Int[torch.Tensor, "item rank neighbour"]
    """Token ids, the place's own in the middle; -1 beyond an end of the text."""

    context_values: Float[torch.Tensor, "item rank neighbour"]
    """NaN beyond an end of the text."""

    n_texts: int
    """That were looked at."""

    n_tokens: int
    """In them."""

    llm: TransparentLlm
    _strings: dict[int, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<TopActivations: {self.title}>"

    @property
    def title(self) -> str:
        """What it is, and of how much."""
        n_items, k = self.values.shape
        return f"top {k} of {n_items} {self.measured.title}, {self.n_texts} texts, {self.n_tokens} tokens"

    def examples(self, item: int) -> list[Example]:
        """Those of a neuron, head or direction by its number.

        Raises:
            InvalidRequestError: it was not looked at.
        """
        if item not in self.items:
            raise InvalidRequestError(f"{self.measured.kind} {item} was not asked for, but {len(self.items)} others")
        at = self.items.index(item)
        self._ask_for_strings([at])
        middle = self.context_tokens.shape[2] // 2
        found = []
        for rank in (self.positions[at] >= 0).nonzero().flatten().tolist():
            there = (self.context_tokens[at, rank] >= 0).nonzero().flatten()
            found.append(
                Example(
                    float(self.values[at, rank]),
                    int(self.texts[at, rank]),
                    int(self.positions[at, rank]),
                    tuple(self._strings[int(token)] for token in self.context_tokens[at, rank, there]),
                    tuple(self.context_values[at, rank, there].tolist()),
                    middle - int(there[0]),
                )
            )
        return found

    def followed_by(self, *others: TopActivations) -> TopActivations:
        """What a scan of these texts and then of the others' would have found, but for the last digits, which depend on
        what is run together: so parts of a data set can be scanned at one time, by several servers.

        Args:
            others: Of texts that come after these, one after another, asked for with the same settings.

        Returns:
            Texts are counted through: the first one of the second scan has the number after the last of the first.

        Raises:
            InvalidRequestError: another model, other items, or another k or context.
        """
        found = self
        for other in others:
            found = found._with(other)
        return found

    def _with(self, other: TopActivations) -> TopActivations:
        if not isinstance(other, TopActivations):
            raise InvalidRequestError(f"what follows must be another TopActivations, got {kind_of(other)}")
        self._require_same_question(other)
        best = torch.cat([self.values, other.values], dim=1).sort(dim=1, descending=True, stable=True)
        k = self.values.shape[1]
        order = best.indices[:, :k]
        texts = torch.where(other.texts >= 0, other.texts + self.n_texts, other.texts)
        near = order[..., None].expand(-1, -1, self.context_tokens.shape[2])
        return replace(
            self,
            values=best.values[:, :k],
            texts=torch.cat([self.texts, texts], dim=1).gather(1, order),
            positions=torch.cat([self.positions, other.positions], dim=1).gather(1, order),
            context_tokens=torch.cat([self.context_tokens, other.context_tokens], dim=1).gather(1, near),
            context_values=torch.cat([self.context_values, other.context_values], dim=1).gather(1, near),
            n_texts=self.n_texts + other.n_texts,
            n_tokens=self.n_tokens + other.n_tokens,
        )

    def _require_same_question(self, other: TopActivations) -> None:
        pairs = {
            "model": (identity_of(self.llm), identity_of(other.llm)),
            "site": (self.measured.recipe(), other.measured.recipe()),
            "items": (self.items, other.items),
            "k": (self.values.shape[1], other.values.shape[1]),
            "context": (self.context_tokens.shape[2] // 2, other.context_tokens.shape[2] // 2),
        }
        for name, (here, there) in pairs.items():
            if here != there:
                said = " and ".join(quoted(str(each))[:100] for each in (here, there))
                raise InvalidRequestError(f"two scans differ in their {name}, {said}: ask for both in the same way")

    def table(self) -> Table:
        """The best place of each of the first items."""
        self._ask_for_strings(range(min(MOST_CARDS, len(self.items))))
        best = [(item, example) for item in self.items[:MOST_CARDS] for example in self.examples(item)[:1]]
        rows = [
            (item, f"{e.value:.4g}", e.text, e.pos, repr(e.tokens[e.peak]), repr("".join(e.tokens))) for item, e in best
        ]
        return Table.of(self.title, (self.measured.kind, "value", "text", "pos", "token", "around it"), rows)

    def _repr_html_(self) -> str:
        """A card for each of the first items."""
        self._ask_for_strings(range(min(MOST_CARDS, len(self.items))))
        cards = "".join(map(self._card, self.items[:MOST_CARDS]))
        more = len(self.items) - MOST_CARDS
        words = f"Not all is shown: {more} of {len(self.items)} left out; examples() has them." if more > 0 else ""
        return figure(self.title, cards, words)

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each place.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ImportError(missing("to_pandas", "notebook", error)) from error
        self._ask_for_strings(range(len(self.items)))
        columns = (self.measured.kind, "rank", "value", "text", "pos", "token", "context")
        rows = [
            (item, rank, e.value, e.text, e.pos, e.tokens[e.peak], "".join(e.tokens))
            for item in self.items
            for rank, e in enumerate(self.examples(item))
        ]
        return pandas.DataFrame(rows, columns=list(columns))

    def _ask_for_strings(self, places: Sequence[int]) -> None:
        """The texts of all tokens of some items that are not known yet, many at a time."""
        ids = sorted({*self.context_tokens[list(places)].flatten().tolist()} - self._strings.keys())
        for start in range(0, len(ids), _IDS_AT_ONCE):
            self._strings.update(strings_of(self.llm, ids[start : start + _IDS_AT_ONCE]))

    def _card(self, item: int) -> str:
        examples = self.examples(item)
        scale = Scale.of(torch.tensor([value for e in examples for value in e.values]))
        shown = [
            coloured_tokens_html(
                e.tokens, e.values, title=f"{e.value:.4g}: text {e.text}, pos {e.pos}", scale=scale, marked=e.peak
            )
            for e in examples
        ]
        return figure(f"{self.measured.kind} {item}{self._promoted(item)}", "".join(shown))

    def _promoted(self, item: int) -> str:
        """The tokens that it makes more likely, where it stands for a vector."""
        try:
            vector = self.measured.output(self.llm, item)
            if vector is None:
                return ""
            k = min(_PROMOTED, self.llm.model_info().d_vocab)
            return f", promotes {' '.join(map(repr, top_tokens_of(self.llm, vector, k=k).strings))}"
        except NotSupportedError:
            return ""
