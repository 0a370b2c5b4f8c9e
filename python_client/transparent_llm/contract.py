"""The product: `TransparentLlm`, everything that can be asked of a language model's insides.

The interface (names, arguments, shapes) is that of the abstract class of the same name which inspection
tools are written against. Its meaning is defined here, once, for every implementation: a model in this
process, or one behind a server.

Conventions, true for every method:

* `run` computes one batch of sentences; all other methods but `model_info`, `tokens_to_strings`,
  `unembed` and `neuron_output` read that batch and raise `NotRunError` before the first `run`.
* Sentences of different length are padded on the right, so that position `p` of a batch row is position
  `p` of the sentence alone. Values at padded positions are computed but mean nothing. What stands there is the choice
  `padding` of an object, or of a `reading` block: with "nan", every element of a floating value that belongs to such
  a position is NaN (of attention: as a target or as a source), and integers stay as they are. With "keep", the
  default, it is what was computed, and a method that is given such a `pos` warns (`PaddingWarning`), once for each run.
* Layers, heads, neurons, positions and batch indices count from 0, negative ones from the end: `residual_out(-1)`
  is the last layer's. A negative position counts from the last token of its row, which padding may follow. What
  lies outside raises `IndexOutOfRangeError` (an `IndexError`).
* Floating results have the dtype that the model was loaded with. Sums that a definition asks for are
  accumulated in float32 and rounded once.
* The residual stream of layer `l`: `residual_in(l)` enters the block, attention adds its output and gives
  `residual_after_attn(l)`, the feed-forward part adds `ffn_out(l)` and gives `residual_out(l)`, which is
  `residual_in(l + 1)`. In models that run attention and feed-forward side by side no tensor exists between
  the two; there `residual_after_attn` is *defined* as `residual_in` plus the attention output.
* What a branch "added to the residual stream" includes everything between the branch and the sum: a norm
  after the branch (Gemma 2 and 3, OLMo 2), with the scale that the norm had in this run, and a residual
  multiplier (Granite). Biases of output projections belong to no head and to no neuron.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int

from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.quoting import quoted
from transparent_llm.table import Table

_Self = TypeVar("_Self", bound="TransparentLlm")


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before anything ran."""

    name: str
    """The name it is served or was loaded under."""

    n_params_estimate: int
    """Number of parameters, shared ones counted once."""

    n_layers: int
    """Number of transformer blocks."""

    n_heads: int
    """Number of query heads in each block."""

    d_model: int
    """Width of the residual stream."""

    d_vocab: int
    """Number of rows of the unembedding, which can exceed what the tokenizer uses."""


class TransparentLlm(ABC):
    """A language model whose inside can be read: run sentences, then ask.

    An object holds one current run. `copy()` gives another object on the same model with a current run of
    its own, which is how several threads share a model. The implementations of this project raise `NotRunError` where
    two threads run one object and its current run is not the caller's any more.
    """

    @abstractmethod
    def model_info(self) -> ModelInfo:
        """Shape and name of the model. Works before any run."""

    @abstractmethod
    def run(self, sentences: list[str]) -> None:
        """Run the sentences as one batch, which becomes what all other methods read.

        Raises:
            InvalidRequestError: no sentence, or one without any token.
            TooLargeError: a sentence longer than the model's context; nothing is ever truncated silently.
        """

    @abstractmethod
    def batch_size(self) -> int:
        """Number of sentences in the current run."""

    @abstractmethod
    def tokens(self) -> Int[torch.Tensor, "batch pos"]:
        """Token ids of the current run (int64), padded on the right."""

    @abstractmethod
    def tokens_to_strings(self, tokens: Int[torch.Tensor, "pos"]) -> list[str]:
        """The text of each token by itself, leading space included.

        A token that holds only a part of a multi-byte character reads U+FFFD. Ids inside the model's
        vocabulary that the tokenizer does not define read `<unused:ID>`.

        Raises:
            InvalidRequestError: an id outside the model's vocabulary.
        """

    @abstractmethod
    def logits(self) -> Float[torch.Tensor, "batch pos d_vocab"]:
        """The model's output, after whatever scaling or capping the model itself applies to it."""

    @abstractmethod
    def unembed(self, t: Float[torch.Tensor, "d_model"], normalize: bool) -> Float[torch.Tensor, "vocab"]:
        """Project a vector of the residual stream to the vocabulary; or each row of a matrix [n d_model], which gives
        [n vocab].

        With `normalize` the final norm and the model's own post-processing of logits (soft cap, scale) are
        applied, so that the last layer's `residual_out` gives the model's output. Without, the result is
        the plain product with the unembedding matrix (plus its bias, if any): a direction's raw weights.
        """

    @abstractmethod
    def residual_in(self, layer: int) -> Float[torch.Tensor, "batch pos d_model"]:
        """The residual stream as it enters block `layer`."""

    @abstractmethod
    def residual_after_attn(self, layer: int) -> Float[torch.Tensor, "batch pos d_model"]:
        """The residual stream after attention's output was added in block `layer`."""

    @abstractmethod
    def residual_out(self, layer: int) -> Float[torch.Tensor, "batch pos d_model"]:
        """The residual stream as it leaves block `layer`."""

    @abstractmethod
    def ffn_out(self, layer: int) -> Float[torch.Tensor, "batch pos d_model"]:
        """What the feed-forward part of block `layer` added to the residual stream, bias included."""

    @abstractmethod
    def decomposed_ffn_out(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, "hidden d_model"]:
        """What each neuron added: its activation times its output vector.

        Sums over neurons to `ffn_out(layer)[batch_i, pos]` less the output bias. In a mixture of experts
        the neuron with index `expert * d_expert + j` is neuron `j` of that expert, its activation includes
        the router's weight, and neurons of experts that were not chosen are zero; the neurons of a shared
        expert follow after all routed ones.
        """

    @abstractmethod
    def neuron_activations(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, "d_ffn"]:
        """Activations right after the activation function.

        In a gated feed-forward this is `act(gate) * up`, the only quantity whose product with the output
        vectors sums to the layer's output. Indexed as in `decomposed_ffn_out`.
        """

    @abstractmethod
    def neuron_output(self, layer: int, neuron: int) -> Float[torch.Tensor, "d_model"]:
        """The raw output weight vector of one neuron; it depends on no run."""

    @abstractmethod
    def attention_matrix(self, batch_i: int, layer: int, head: int) -> Float[torch.Tensor, "query_pos key_pos"]:
        """Attention probabilities after softmax; row = the position that attends."""

    @abstractmethod
    def attention_output(
        self, batch_i: int, layer: int, pos: int, head: int | None = None
    ) -> Float[torch.Tensor, "d_model"]:
        """What head `head` added to the residual stream at `pos`; the output bias belongs to no head.

        Without a head: the whole attention output at that position, bias included.
        """

    @abstractmethod
    def decomposed_attn(self, batch_i: int, layer: int) -> Float[torch.Tensor, "target source head d_model"]:
        """What each source position gave each target position through each head.

        `[t, s, h] = attention_matrix(batch_i, layer, h)[t, s] * (value of s in h @ W_O of h)`. Sums over
        source and head to the attention output less its bias.
        """

    def attention_output_per_head(
        self, batch_i: int, layer: int, pos: int, head: int
    ) -> Float[torch.Tensor, "d_model"]:
        """`attention_output` with a head; code written for other implementations calls it by this name."""
        return self.attention_output(batch_i, layer, pos, head)

    def copy(self: _Self) -> _Self:
        """Another object on the same model (the same connection, where there is one) with its own current run.

        It starts with the run of the original. Running either leaves the other as it was.
        """
        return copy.copy(self)

    def run_tokens(self, token_ids: list[list[int]]) -> None:  # noqa: ARG002 - a name for those who implement it
        """Run token ids, a list for each row, instead of text; nothing is put before them.

        Not every implementation can; one that cannot raises `NotSupportedError`.
        """
        raise NotSupportedError(f"{type(self).__name__} runs sentences only, not token ids")

    def mask(self) -> Bool[torch.Tensor, "batch pos"]:
        """For each position of the current run whether it holds a token (True) or padding (False).

        Not every implementation knows; one that does not raises `NotSupportedError`.
        """
        raise NotSupportedError(f"{type(self).__name__} does not distinguish padding from tokens")

    def last(self) -> Int[torch.Tensor, "batch"]:
        """The position of the last token of each row (int64), which padding may follow: `logits()[range(n), last()]`.

        Raises as `mask` does, where it is not known.
        """
        return self.mask().sum(dim=1) - 1

    def to_tokens(self, text: str, *, add_bos: bool | None = None) -> Int[torch.Tensor, "pos"]:  # noqa: ARG002 - names for those who implement it
        """Token ids of a text (int64), as `run([text])` would have them. No run is made.

        Not every implementation can; one that cannot raises `NotSupportedError`.

        Args:
            text: One string. One that starts with the beginning token as it is gets no second one.
            add_bos: Whether the beginning token is put before. None: as the model wants it, as `run` does.

        Raises:
            InvalidRequestError: no text, one without any token, or there is no beginning token to put before.
            TooLargeError: it is longer than the model's context.
        """
        raise NotSupportedError(f"{type(self).__name__} does not tokenize without a run")

    def to_str_tokens(self, text: str, *, add_bos: bool | None = None) -> list[str]:
        """The text of each of the tokens that `to_tokens` gives; it raises the same."""
        return self.tokens_to_strings(self.to_tokens(text, add_bos=add_bos))

    def to_single_token(self, text: str) -> int:
        """The id of a text that is one token, such as " Mary"; the space in front belongs to it.

        Raises:
            InvalidRequestError: it is none or several, which the message names. Otherwise as `to_tokens`.
        """
        if text == "":
            raise InvalidRequestError("'' is no token: give text", reason="EMPTY_INPUT", metadata={"tokens": "0"})
        tokens = self.to_tokens(text, add_bos=False)
        if len(tokens) != 1:
            pieces = ", ".join(f"{token!r}" for token in self.tokens_to_strings(tokens[:10]))
            raise InvalidRequestError(
                f"{quoted(text)} is {len(tokens)} tokens, not one: {pieces}", metadata={"tokens": str(len(tokens))}
            )
        return int(tokens[0])

    def describe_run(self) -> Table:
        """The tokens of the current run, id beside text, a line for each; `print` and notebooks show it.

        Padding is left out, where it is known.
        """
        tokens = self.tokens()
        try:
            lengths = [int(last) + 1 for last in self.last()]
        except NotSupportedError:
            lengths = [tokens.shape[1]] * tokens.shape[0]
        rows = [
            (row, pos, int(tokens[row, pos]), repr(string))
            for row, length in enumerate(lengths)
            for pos, string in enumerate(self.tokens_to_strings(tokens[row, :length]))
        ]
        return Table.of(f"run of {tokens.shape[0]} sentences", ("row", "pos", "id", "token"), rows)
