"""Whether a tokenizer can be that of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server.models.loading.refusal import printable, refusing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def require_vocabulary(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer that knows no text: transformers makes one of nothing where the files are absent.

    Raises:
        InvalidRequestError: it has special tokens at most.
    """
    with refusing(lambda words: f"the tokenizer of {name!r} cannot be used: {words}", InvalidRequestError):
        ids = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        own = _own(tokenizer)
    if not own or not ids:
        raise InvalidRequestError(
            f"no tokenizer for {name!r}: its files hold no words; put tokenizer.json, or what else its tokenizer is "
            "saved as (save_pretrained), beside config.json"
        )


def require_same_vocabulary(tokenizer: PreTrainedTokenizerBase, d_vocab: int) -> None:
    """Refuse the tokenizer of another, larger model. Tokens that were added to it may lie outside the model, as in some
    that are published (Gemma 3 1B, fine-tuned ones with a token for padding): whoever uses one is refused.

    Raises:
        ModelRefusedError: with the first of its own tokens that the model does not have.
    """
    own = _own(tokenizer)
    token = max(own, key=own.__getitem__, default=None)
    if token is not None and own[token] >= d_vocab:
        raise ModelRefusedError(
            f"the tokenizer is that of another model: its token {printable(token)!r} has the id {own[token]}, the "
            f"model has {d_vocab} tokens",
            metadata={"token": str(own[token]), "size": str(d_vocab)},
        )
    always = max(tokenizer("a")["input_ids"], default=0)
    if always >= d_vocab:
        raise ModelRefusedError(
            f"the tokenizer puts token {always} into every sentence, the model has {d_vocab} tokens",
            metadata={"token": str(always), "size": str(d_vocab)},
        )


def _own(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Its tokens without those that were added to it; Mistral's own class knows no difference."""
    added: dict[str, int] = getattr(tokenizer, "get_added_vocab", dict)()
    return {token: number for token, number in tokenizer.get_vocab().items() if token not in added}
