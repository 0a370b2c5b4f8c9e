"""How a text goes on in the model and in the model with edits, side by side, and how far apart the two are by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from jaxtyping import Float

from transparent_llm.analysis.display.markup import figure
from transparent_llm.analysis.display.scale import Scale
from transparent_llm.analysis.display.tokens import coloured_tokens_html
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.reading import require_feature
from transparent_llm.analysis.showing import ShowsItself
from transparent_llm.analysis.uncut import require_uncut
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.generation import Generating, NextToken
from transparent_llm.interventions import Intervention
from transparent_llm.interventions.own import checked_edits
from transparent_llm.table import Table


@dataclass(frozen=True, eq=False)
class Continuation:
    """What one of the two models wrote, and how the two judge it."""

    tokens: tuple[NextToken, ...]
    """One for each step; `logprob` is that of the model which wrote them."""

    kl: Float[torch.Tensor, "step"]
    """KL(edited || plain) of the distribution that each of these tokens was taken from, in nats, float64: both models
    have read the prompt and the tokens before it, whoever wrote them."""

    @property
    def text(self) -> str:
        """All tokens, each with the text that it has by itself."""
        return "".join(token.text for token in self.tokens)

    @property
    def ids(self) -> list[int]:
        """The token ids."""
        return [token.token_id for token in self.tokens]


@dataclass(frozen=True, eq=False, repr=False)
class GenerationComparison(ShowsItself):
    """The plain and the edited continuation of one prompt.

    Up to `parts_at`, that step included, both models have read the same in both, so that the two `kl` agree but for
    rounding. Behind it each is of its own text: `plain.kl` of what the plain model wrote, read by both, and `edited.kl`
    of what the edited model wrote, read by both.
    """

    batch_i: int
    """Which of the prompts."""

    plain: Continuation
    """Of the model without the edits."""

    edited: Continuation
    """Of the model with them."""

    @property
    def parts_at(self) -> int | None:
        """The first step whose tokens differ, or that one of them does not have. None: they are the same."""
        plain, edited = self.plain.ids, self.edited.ids
        if plain == edited:
            return None
        shared = (step for step, (one, other) in enumerate(zip(plain, edited, strict=False)) if one != other)
        return next(shared, min(len(plain), len(edited)))

    def labelled(self) -> Labelled:
        """Log-probabilities and divergences of both; the axes are "plain_step" and "edited_step"."""
        axes: list[Axis] = []
        tensors: dict[str, OnAxes] = {}
        for name, side in (("plain", self.plain), ("edited", self.edited)):
            axis = Axis(f"{name}_step", range(len(side.tokens)), {"token": [token.text for token in side.tokens]})
            logprobs = torch.tensor([token.logprob for token in side.tokens], dtype=torch.float64, device="cpu")
            axes.append(axis)
            tensors |= {f"{name}_kl": OnAxes(side.kl, (axis.name,)), f"{name}_logprob": OnAxes(logprobs, (axis.name,))}
        return _Drawn(self._title, tuple(axes), tensors, self)

    def table(self) -> Table:
        """A line for each step; `*` where the tokens differ."""
        steps = range(max(len(self.plain.tokens), len(self.edited.tokens)))
        lines = [(step, *_cells(self.plain, step), *_cells(self.edited, step), self._mark(step)) for step in steps]
        columns = ("step", "plain", "logprob", "KL", "edited", "logprob", "KL", "")
        return Table.of(self._title, columns, lines)

    @property
    def _title(self) -> str:
        at = self.parts_at
        where = "the same tokens" if at is None else f"they part at step {at}"
        return f"plain and edited continuation, row {self.batch_i}: {where}; KL(edited || plain) in nats"

    def _mark(self, step: int) -> str:
        return "*" if self.plain.ids[step : step + 1] != self.edited.ids[step : step + 1] else ""


@dataclass(frozen=True, eq=False, repr=False)
class _Drawn(Labelled):
    comparison: GenerationComparison

    def picture(self) -> str:
        """Both texts, each token on the colour of the divergence where it was chosen; the one that parts has a line
        around it."""
        both = (("plain", self.comparison.plain), ("edited", self.comparison.edited))
        scale, at = Scale.of(torch.cat([side.kl for _, side in both])), self.comparison.parts_at
        texts = [
            coloured_tokens_html(
                [token.text for token in side.tokens],
                side.kl,
                title=name,
                value_name="KL(edited || plain)",
                notes=[f"log-probability {token.logprob:.4f}, {name}" for token in side.tokens],
                scale=scale,
                marked=at,
            )
            for name, side in both
        ]
        return figure(self.title, "".join(texts))


@overload
def compare_generations(
    llm: TransparentLlm, prompt: str | None, edits: Sequence[Intervention], max_new_tokens: int = 20, **settings: Any
) -> GenerationComparison:
    """Of one prompt."""


@overload
def compare_generations(
    llm: TransparentLlm,
    prompt: Sequence[str],
    edits: Sequence[Intervention],
    max_new_tokens: int = 20,
    **settings: Any,
) -> tuple[GenerationComparison, ...]:
    """Of each of several."""


def compare_generations(
    llm: TransparentLlm,
    prompt: str | Sequence[str] | None,
    edits: Sequence[Intervention],
    max_new_tokens: int = 20,
    **settings: Any,
) -> GenerationComparison | tuple[GenerationComparison, ...]:
    """Go on with a text without edits and with them, and compare the two models at every new token of both texts.

    Four runs: two generations, and each text read by the other model. The divergence is computed next to the weights;
    no logits travel. The current run of `llm` stays as it was, and its `edits` blocks are part of neither.

    Args:
        llm: Whose model it is.
        prompt: A sentence; or a list of them, which gives as many comparisons. None: `messages` are among the settings.
        edits: As `generate` takes them.
        max_new_tokens: Of each text.
        settings: Others of `generate`: `messages`, `temperature`, `top_k`, `top_p`, `seed`, `stop`, `top_logprobs`.
            Where tokens are drawn, both texts are drawn with the same seed.

    Raises:
        InvalidRequestError: there are no edits, or within a block that cuts axes. Otherwise as `generate` raises.
        NotSupportedError: `llm` cannot go on with texts, or its server is too old.
    """
    require_uncut(llm)
    made = checked_edits(edits)
    if not made:
        raise InvalidRequestError("edits are empty: without any, the edited text is the plain one")
    if not isinstance(llm, Generating):
        raise NotSupportedError(f"{type(llm).__name__} cannot go on with texts")
    require_feature(llm, "compare_positions")
    plain, edited = (_written(llm, prompt, max_new_tokens, each, settings) for each in ((), made))
    of_plain = _continuations(plain.new, _reading(llm, plain.rows, made), plain.llm)
    of_edited = _continuations(edited.new, edited.llm, _reading(llm, edited.rows, ()))
    both = zip(of_plain, of_edited, strict=True)
    found = tuple(GenerationComparison(row, *each) for row, each in enumerate(both))
    return found[0] if prompt is None or isinstance(prompt, str) else found


@dataclass(frozen=True, eq=False)
class _Written:
    """Texts of one model, all rows."""

    llm: Any
    """An object whose current run is of them."""

    new: list[tuple[NextToken, ...]]
    """The new tokens of each row."""

    @property
    def rows(self) -> list[list[int]]:
        """What the model read: each prompt and all new tokens but the last."""
        tokens, lengths = self.llm.tokens(), self.llm.mask().sum(dim=1).tolist()
        return [tokens[row, :length].tolist() for row, length in enumerate(lengths)]


def _written(
    llm: Any, prompt: object, max_new_tokens: int, edits: tuple[Intervention, ...], settings: dict[str, Any]
) -> _Written:
    own = llm.copy()
    steps = list(own.generate(prompt, max_new_tokens, edits=edits, **settings))
    rows = zip(*(step.tokens for step in steps), strict=True)
    return _Written(own, [tuple(token for token in row if token is not None) for row in rows])


def _reading(llm: Any, rows: list[list[int]], edits: tuple[Intervention, ...]) -> Any:
    own = llm.copy()
    own.run_tokens(rows, edits=edits)
    return own


def _continuations(new: list[tuple[NextToken, ...]], edited: Any, plain: Any) -> list[Continuation]:
    """Of the new tokens of each row, and the objects whose current runs have read them all but the last."""
    lengths = plain.mask().sum(dim=1).tolist()
    first = min(length - len(tokens) for length, tokens in zip(lengths, new, strict=True))
    compared = edited.compare(plain, first)
    return [
        Continuation(tokens, torch.tensor(row.kl_by_pos[-len(tokens) :], dtype=torch.float64, device="cpu"))
        for row, tokens in zip(compared, new, strict=True)
    ]


def _cells(side: Continuation, step: int) -> tuple[str, str, str]:
    """Empty where the text has ended."""
    if step >= len(side.tokens):
        return ("", "", "")
    token = side.tokens[step]
    return repr(token.text), f"{token.logprob:.3f}", f"{side.kl[step]:.4g}"
