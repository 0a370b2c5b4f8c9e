"""How likely a text was to the model, token by token, as a result that shows the text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.display.tokens import coloured_tokens_html
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.reading import read_all
from transparent_llm.analysis.rows import Row
from transparent_llm.contract import TransparentLlm


@dataclass(frozen=True, repr=False, eq=False)
class TextLogprobs(Labelled):
    """What `token_logprobs` answers: at each position of a row that of the token that follows it, without padding."""

    @property
    def logprobs(self) -> Float[torch.Tensor, "pos"]:
        """Its log-probability, in nats; NaN at the last token, which none follows."""
        return self["logprobs"]

    @property
    def ranks(self) -> Int[torch.Tensor, "pos"]:
        """How many tokens were more likely; -1 where no token follows."""
        return self["ranks"]

    def picture(self) -> str:
        """The text, each token on the colour of its own log-probability; the first has none."""
        tokens = list(self.axes[0].labels["token"])
        own = torch.cat([self.logprobs[-1:], self.logprobs[:-1]])  # the last is NaN: there is none
        notes = ["not predicted", *(f"rank {rank}" for rank in self.ranks[:-1].tolist())]
        return coloured_tokens_html(tokens, own, title=self.title, value_name="log-probability", notes=notes)


def text_logprobs(llm: TransparentLlm, batch_i: int = 0) -> TextLogprobs:
    """The log-probability and the rank that the model gave to each token of a row, at the position before it.

    Raises:
        IndexOutOfRangeError: the run has no such row.
    """
    row = Row.of(llm, batch_i)
    (found,) = read_all(llm, [("token_logprobs", row.index)])
    n = row.n_tokens
    tensors = {name: OnAxes(getattr(found, name)[:n].cpu(), ("pos",)) for name in ("logprobs", "ranks")}
    axis = Axis("pos", range(n), {"token": row.words(llm)})
    return TextLogprobs(f"log-probability of each next token, row {row.index}", (axis,), tensors)
