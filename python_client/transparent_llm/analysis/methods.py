"""The analyses as methods of the classes of this project; as functions they take any `TransparentLlm`."""

from __future__ import annotations

from transparent_llm.analysis.logit_lens import logit_lens
from transparent_llm.analysis.reading import read_all
from transparent_llm.analysis.token_logprobs import TokenLogprobs
from transparent_llm.analysis.top_tokens import top_tokens, top_tokens_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.runtime.short_tracebacks import short_tracebacks


@short_tracebacks
class Analyses(TransparentLlm):
    """A `TransparentLlm` that can be asked for analyses of its current run."""

    logit_lens = logit_lens
    top_tokens = top_tokens
    top_tokens_of = top_tokens_of

    def token_logprobs(self, batch_i: int = 0) -> TokenLogprobs:
        """The log-probability and the rank that the model gave to each token of a row, at the position before it.

        Raises:
            IndexOutOfRangeError: the run has no such row.
        """
        found: TokenLogprobs = read_all(self, [("token_logprobs", batch_i)])[0]
        return found
