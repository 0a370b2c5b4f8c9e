"""Which token comes next, out of what the model says of all of them; and when a row has come to its end."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import torch

from transparent_llm.errors import NotSupportedError
from transparent_llm.generation import Finished, GenerationSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Chooser:
    """Of one generation. What is drawn of a row depends on the seed, the number of the row, and the logits."""

    def __init__(self, settings: GenerationSettings, n_rows: int) -> None:
        self._settings = settings
        self._generators = [_generator(settings.seed, row) for row in range(n_rows)]

    def token(self, row: int, logits: torch.Tensor) -> int:
        """The next token of a row, by the logits of it [d_vocab], float32 on the CPU.

        Raises:
            NotSupportedError: they are no numbers.
        """
        likeliest = int(logits.argmax())
        if not math.isfinite(logits[likeliest]):  # which is NaN if any is
            raise NotSupportedError(
                f"the logits after the last token of row {row} are not finite, so no next token can be chosen; run "
                "these tokens to see where that begins"
            )
        if self._settings.temperature == 0:
            return likeliest
        drawn = torch.multinomial(self.probabilities(logits), 1, generator=self._generators[row])
        return int(drawn)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """That tokens are drawn with [d_vocab]: of transformers' own warpers, in the order in which it has them."""
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        settings, scores = self._settings, logits[None]
        none = torch.zeros((1, 0), dtype=torch.int64)
        if settings.temperature != 1:
            scores = TemperatureLogitsWarper(settings.temperature)(none, scores)
        if settings.top_k is not None:
            scores = TopKLogitsWarper(settings.top_k)(none, scores)
        if settings.top_p is not None and settings.top_p < 1:
            scores = TopPLogitsWarper(settings.top_p)(none, scores)
        return scores[0].softmax(0)


class Ends:
    """What ends the rows of one generation."""

    def __init__(
        self, settings: GenerationSettings, of_model: Collection[int], decode: Callable[[Sequence[int]], str]
    ) -> None:
        """`of_model`: tokens that end its texts. `decode`: the text of tokens in a row."""
        self._settings, self._of_model, self._decode = settings, of_model, decode

    def finished(self, new: Sequence[int]) -> Finished | None:
        """Why the last of these new tokens of a row is its last; None: it is not."""
        if new[-1] in self._of_model:
            return "eos"
        if new[-1] in self._settings.stop_token_ids:
            return "stop"
        if self._settings.stop_strings:
            text = self._decode(new)
            if any(stop in text for stop in self._settings.stop_strings):
                return "stop"
        return "length" if len(new) >= self._settings.max_new_tokens else None


def end_tokens(hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end a text: of the model's settings for generation, else of its tokenizer."""
    found = getattr(getattr(hf_model, "generation_config", None), "eos_token_id", None)
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset([found] if isinstance(found, int) else map(int, found))


def _generator(seed: int, row: int) -> torch.Generator:
    """On the CPU, where torch draws the same on every machine."""
    named = hashlib.sha256(f"{seed}/{row}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(named[:8], "big") >> 1)
