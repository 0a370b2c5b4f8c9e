"""The bridge: TransformerLens' `RemoteBridge`, where a hook that cannot be read is an error and lists of texts run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformer_lens import ActivationCache
from transformer_lens.model_bridge import RemoteBridge

from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.integrations.transformer_lens.captured import Captured
from transparent_llm.integrations.transformer_lens.refusal import LOCAL, not_served


class TransparentLlmBridge(RemoteBridge):  # type: ignore[misc]  # TransformerLens has no types here
    """A `RemoteBridge` over a `TransparentLlmDriver`; `boot_transparent_llm` makes one."""

    def forward(self, input: Any = None, *, prepend_bos: bool | None = None, **options: Any) -> Any:
        """As `RemoteBridge.forward`, which takes one text or token ids; this takes a list of texts as well.

        Texts of different length are padded on the side of the tokenizer, as in a local bridge.

        Args:
            input: A text, a list of texts, or token ids [batch pos].
            prepend_bos: For texts; None: as the model wants it.
            options: See `RemoteBridge.forward` and `TransparentLlmDriver.forward`.

        Raises:
            InvalidRequestError: `prepend_bos` with token ids, or a mask with texts, which bring their own.
            NotSupportedError: what the service cannot do.
        """
        texts = [input] if isinstance(input, str) else input
        if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
            if options.get("attention_mask") is not None:
                raise InvalidRequestError("texts bring their own attention_mask: leave it out, or give token ids")
            input, options["attention_mask"] = self._padded(texts, prepend_bos)
        elif prepend_bos is not None:
            raise InvalidRequestError("prepend_bos is for texts: token ids are run as they are")
        return super().forward(input, **options)

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        """As `RemoteBridge.run_with_cache`; the cache says in words what it cannot have, as a `NotSupportedError`."""
        output, cache = super().run_with_cache(*args, **kwargs)
        if isinstance(cache, ActivationCache):
            cache.cache_dict = Captured(cache.cache_dict, self.hook_dict.keys(), self._driver.supported_hook_points)
        return output, cache

    def __repr__(self) -> str:
        cfg = self.cfg
        shape = f"{cfg.n_layers} layers, {cfg.n_heads} heads, d_model {cfg.d_model}, d_vocab {cfg.d_vocab}"
        return f"<TransparentLlmBridge of {self._driver.llm!r}: {shape}>"

    @property
    def W_U(self) -> torch.Tensor:
        """The unembedding matrix [d_model d_vocab], read once: as large as the model's vocabulary times its width."""
        matrix: torch.Tensor = self._driver.unembedding[0]
        return matrix

    @property
    def b_U(self) -> torch.Tensor:
        """The bias of the unembedding [d_vocab]; zeros where the model has none."""
        bias: torch.Tensor = self._driver.unembedding[1]
        return bias

    def unembed(self, residual: torch.Tensor) -> torch.Tensor:
        """The product of residual vectors [..., d_model] with the unembedding, bias included [..., d_vocab]."""
        scores: torch.Tensor = self._driver.unembed(residual)
        return scores

    @property
    def ln_final(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Where TransformerLens looks for the final norm's weights, to normalize each vector by itself.

        Calling it raises:
            NotSupportedError: they are not here.
        """
        return _without_weights

    def tokens_to_residual_directions(self, tokens: str | int | torch.Tensor) -> torch.Tensor:
        """The columns of `W_U` of a token [d_model], or of several [..., d_model]; `ActivationCache.logit_attrs` needs
        them. As in a local bridge whose weights are as published, those of the final norm are not in them.

        Args:
            tokens: A text that is one token, an id, or ids.

        Raises:
            InvalidRequestError: an id outside the vocabulary, or what is no id.
        """
        ids = torch.as_tensor(self.to_single_token(tokens) if isinstance(tokens, str) else tokens)
        if ids.is_floating_point() or ids.dtype == torch.bool or ids.numel() == 0:
            raise InvalidRequestError(f"tokens are ids, got {ids.dtype} of shape {list(ids.shape)}")
        if ids.min() < 0 or ids.max() >= self.cfg.d_vocab:
            raise InvalidRequestError(f"tokens are ids from 0 to {self.cfg.d_vocab - 1}, got {ids.tolist()}")
        return self.W_U[:, ids.reshape(()) if ids.numel() == 1 else ids].movedim(0, -1)

    def to_string(self, tokens: Any) -> Any:
        """The text of token ids [pos], or of each row of [batch pos]."""
        ids = torch.as_tensor(tokens)
        decode = self.tokenizer.batch_decode if ids.ndim == 2 else self.tokenizer.decode
        return decode(ids, clean_up_tokenization_spaces=False)

    def to_str_tokens(self, input: Any, prepend_bos: bool | None = None, padding_side: str | None = None) -> Any:
        """The text of each token of a text, or of token ids [pos] or [1 pos]; of a list, of each of its items.

        Raises:
            InvalidRequestError: ids of several rows.
        """
        if isinstance(input, list) and any(isinstance(item, (str, list)) for item in input):
            return [self.to_str_tokens(item, prepend_bos, padding_side) for item in input]
        given = self.to_tokens(input, prepend_bos=prepend_bos) if isinstance(input, str) else torch.as_tensor(input)
        if given.ndim == 2 and len(given) == 1:
            given = given[0]
        if given.ndim > 1:
            raise InvalidRequestError(f"to_str_tokens takes one row of ids, got shape {list(given.shape)}")
        return self._driver.llm.tokens_to_strings(given.reshape(-1))

    def to_single_token(self, string: str) -> int:
        """The id of a text that is one token.

        Raises:
            InvalidRequestError: it is none or several.
        """
        token: int = self._driver.llm.to_single_token(string)
        return token

    def _replay_captures(self, captured: Mapping[str, Any]) -> None:
        """Every hook function that is called is called here.

        Raises:
            NotSupportedError: one has changed its value, or returned another. The values that follow, and the logits,
                would be those of the model as it is, and a patch would seem to have no effect.
        """
        for name, value in captured.items():
            point = self._hook_registry.get(name)
            if point is None:
                continue
            before = value._version
            if point(value) is not value or value._version != before:
                raise NotSupportedError(
                    f"a hook function changed {name}, and the served model cannot be changed: its logits are those "
                    f"without the change. Return None to look only; to patch or ablate, {LOCAL}",
                    metadata={"hook": name},
                )

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether `attn.hook_result`, what each head adds, is read; it is as large as the stream times the heads."""
        self.cfg.use_attn_result = use_attn_result

    def _padded(self, texts: Sequence[str], prepend_bos: bool | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask [batch pos]."""
        rows = [self.to_tokens(text, prepend_bos=prepend_bos)[0] for text in texts]
        tokens = torch.full((len(rows), max(map(len, rows))), self.tokenizer.pad_token_id or 0, dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for index, row in enumerate(rows):
            part = slice(-len(row), None) if self.tokenizer.padding_side == "left" else slice(len(row))
            tokens[index, part], mask[index, part] = row, 1
        return tokens, mask

    def _check_hook_fireable(self, *names: str) -> None:
        """Every way to name a hook comes by here. A list of names would otherwise lose those that are not there."""
        if self._driver.supported_hook_points.isdisjoint(names):
            raise not_served(names[:1], self._driver.supported_hook_points)


def _without_weights(residual: torch.Tensor) -> torch.Tensor:  # noqa: ARG001 - called as the norm would be
    raise NotSupportedError(
        "the final norm's weights are not here, so that no vector is normalized by itself: for a logit lens ask the "
        "client, unembed(residual, normalize=True), and accumulated_resid(apply_ln=False) for the streams; ln_final."
        "hook_scale is what the norm divided by in the run"
    )
