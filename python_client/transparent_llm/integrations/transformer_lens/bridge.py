"""The bridge: TransformerLens' `RemoteBridge`, where a hook that cannot be read is an error and lists of texts run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformer_lens.model_bridge import RemoteBridge

from transparent_llm.errors import InvalidRequestError
from transparent_llm.integrations.transformer_lens.driver import not_served


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
