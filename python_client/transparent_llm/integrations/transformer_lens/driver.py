"""The driver: TransformerLens asks it for hooks, it reads them from a `TransparentLlm`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from transformer_lens.model_bridge.driver_protocol import ForwardResult
from transformer_lens.model_bridge.sources._driver_base import DriverBase

from transparent_llm.client.reads import Read
from transparent_llm.client.remote import RemoteTransparentLlm
from transparent_llm.contract import ModelInfo, TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.integrations.transformer_lens.final_norm import FinalNorm
from transparent_llm.integrations.transformer_lens.hooks import FINAL_SCALE, HOOKS, RESULT, HookPoint
from transparent_llm.integrations.transformer_lens.intervening import (
    BEFORE_ROTARY,
    OF_KEYS_AND_VALUES,
    SITES,
    Place,
    edits_of,
    means_the_same,
)
from transparent_llm.integrations.transformer_lens.refusal import LOCAL, not_served
from transparent_llm.integrations.transformer_lens.rows import Rows
from transparent_llm.interventions.own import Editable
from transparent_llm.wire.methods import METHODS

_ROW_BYTES = 2**20
"""Of vectors that are sent in one call."""


class TransparentLlmDriver(DriverBase):  # type: ignore[misc]  # TransformerLens has no types here
    """A `Driver` of TransformerLens over a model that is read through a `TransparentLlm`.

    It has a copy of `llm`, so that the current run of the caller's object stays as it is, and closing a bridge does
    not close the connection, which is the caller's.

    `supported_hook_points` are the canonical names of TransformerLens for the architecture; a bridge adds the
    `HookedTransformer` names of the same hooks. A hook that its architecture gives another meaning than the methods
    of `TransparentLlm` is not among them.

    Args:
        llm: The model.
        adapter: TransformerLens' adapter for its architecture.
        tokenizer: Its tokenizer.
        unsupported: RPC name -> why, for values that the model does not have in every layer.
    """

    provides_sequence_logits = True

    def __init__(self, llm: TransparentLlm, adapter: Any, tokenizer: Any, unsupported: Mapping[str, str]) -> None:
        super().__init__(adapter.cfg, tokenizer)
        self.llm = llm.copy()
        """The model, with a current run of its own."""

        info = llm.model_info()
        self._n_heads = info.n_heads
        self._points: dict[str, HookPoint] = {}
        block = adapter.component_mapping["blocks"]
        for hook in HOOKS:
            name = canonical_name(block, hook.name)
            if name is not None and METHODS[hook.method].rpc not in unsupported:
                self._points.update({f"blocks.{i}.{name}": HookPoint(hook, i) for i in range(info.n_layers)})
        self._places = dict(_places(block, adapter.cfg, info, self._d_ffn()))
        norm = FinalNorm.of(adapter, self.llm)
        if norm is not None:
            self._points[FINAL_SCALE.name] = HookPoint(FINAL_SCALE, info.n_layers - 1, norm.scale)
        self.supported_hook_points = frozenset(self._points)

    def _d_ffn(self) -> Sequence[int]:
        describe = getattr(self.llm, "describe", None)
        return () if describe is None else describe().d_ffn

    def forward(
        self,
        input_ids: Any = None,
        *,
        capture: tuple[str, ...] = (),
        intervene: Mapping[str, Any] | None = None,
        max_new_tokens: int = 1,
        return_logits: bool = True,
        attention_mask: Any = None,
        output_attentions: bool = True,  # noqa: ARG002 - what run_with_cache asks Hugging Face for; here `capture` does
        **others: Any,
    ) -> ForwardResult:
        """Run token ids and read the captured hooks, and the logits, in one stream.

        At padded positions hooks are 0, a scale 1, and logits minus infinity, as with the other remote drivers of
        TransformerLens. They are not read.

        Args:
            input_ids: [batch pos] or [pos].
            capture: Names out of `supported_hook_points`.
            intervene: Hook name -> {"op": "suppress" | "scale" | "add" | "set", "factor" or "value", "pos"}, of the
                residual stream, what branches add, neurons, and what heads compute. The hooks that are read show it.
            max_new_tokens: 1.
            return_logits: Whether to read them.
            attention_mask: 1 for tokens, 0 for padding, which may be on either side. None: all are tokens.
            output_attentions: Without effect.
            others: Nothing.

        Raises:
            NotSupportedError: an intervention where there can be none, generation, or an argument that this service
                cannot honour.
            InvalidRequestError: no token ids, or ids and mask that fit no run; an intervention that makes no sense.
        """
        _refuse(max_new_tokens, others)
        if input_ids is None:
            raise InvalidRequestError("forward needs input_ids: the service runs token ids")
        points = {name: self._point(name) for name in capture}
        wanted = {name: point for name, point in points.items() if self._fires(point)}
        rows = Rows.of(input_ids, attention_mask)
        with self._edited(intervene or {}, rows):
            self.llm.run_tokens(rows.token_ids)
        sizes = {"batch_i": len(rows.token_ids), "pos": rows.n_pos, "head": self._n_heads}
        reads = {name: point.reads(sizes, rows.lengths) for name, point in wanted.items()}
        read_logits: list[Read] = [("logits", ())] if return_logits else []
        arrived = iter(self._read([*read_logits, *(read for of_hook in reads.values() for read in of_hook)]))
        logits = rows.place(next(arrived), (1,), -torch.inf) if return_logits else None
        captured = {}
        for name, point in wanted.items():
            value = point.value([next(arrived) for _ in reads[name]], sizes, rows.lengths)
            captured[name] = rows.place(value, point.hook.pos_axes, point.hook.padding)
        return ForwardResult(logits=logits, captured=captured)

    def unembed(self, residual: torch.Tensor) -> torch.Tensor:
        """Residual vectors [..., d_model] times the unembedding, bias included [..., d_vocab]."""
        rows = residual.reshape(-1, residual.shape[-1])
        at_once = max(1, _ROW_BYTES // (rows.shape[1] * rows.element_size()))
        scores = [self.llm.unembed(part, normalize=False) for part in torch.split(rows, at_once)]
        return torch.cat(scores).reshape(*residual.shape[:-1], -1)

    @cached_property
    def unembedding(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The matrix [d_model d_vocab] and its bias [d_vocab]: what the service makes of each direction, and of 0."""
        d_model = self.llm.model_info().d_model
        bias = self.unembed(torch.zeros(d_model))
        return self.unembed(torch.eye(d_model)) - bias, bias

    def _edited(self, intervene: Mapping[str, Any], rows: Rows) -> AbstractContextManager[object]:
        if not intervene:
            return nullcontext()
        edits = edits_of(intervene, self._place, rows)
        if not isinstance(self.llm, Editable):
            raise NotSupportedError(f"runs of {type(self.llm).__name__} cannot be edited; {LOCAL}")
        return self.llm.edits(*edits)

    def _place(self, name: str) -> Place:
        if name not in self._places:
            kinds = ", ".join(sorted({re.sub(r"^blocks\.\d+", "blocks.LAYER", each) for each in self._places}))
            why = BEFORE_ROTARY if name.endswith((".hook_q", ".hook_k", ".q.hook_out", ".k.hook_out")) else ""
            raise NotSupportedError(f"{name} cannot be edited in the service{why}. These can: {kinds}; {LOCAL}")
        return self._places[name]

    def _point(self, name: str) -> HookPoint:
        if name not in self._points:
            raise not_served([name], self.supported_hook_points)
        return self._points[name]

    def _fires(self, point: HookPoint) -> bool:
        """As in a local bridge, what each head adds is silent until it is switched on: it is large."""
        return point.hook.name != RESULT or bool(self.bridge_config.use_attn_result)

    def _read(self, reads: Sequence[Read]) -> list[torch.Tensor]:
        if not reads:
            return []
        if isinstance(self.llm, RemoteTransparentLlm):
            return self.llm.fetch([(name, *indices) for name, indices in reads])
        return [getattr(self.llm, name)(*indices) for name, indices in reads]


def canonical_name(block: Any, hook: str) -> str | None:
    """How TransformerLens calls a hook within a block of this architecture; None if it does not mean the same there.

    Args:
        block: The architecture's template of a block.
        hook: The name of a `Hook`.
    """
    part, _, name = hook.rpartition(".")
    owner = block.submodules.get(part) if part else block
    is_scaled = type(block).__name__ == "ScaledResidualBlockBridge"
    if owner is None or type(owner).__name__ == "MoEBridge":  # whose hook_post is what the whole block gives
        return None
    if hook == RESULT and (is_scaled or "ln1_post" in block.submodules):  # a head adds it times a factor, or normed
        return None
    fired_by_itself = {"attn.hook_pattern", RESULT, "attn.hook_rot_q", "attn.hook_rot_k"}
    fired_by_itself |= {"hook_attn_out", "hook_mlp_out"} if is_scaled else set()
    target = hook if hook in fired_by_itself else owner.hook_aliases.get(name)
    if not isinstance(target, str):
        return None
    return f"{part}.{target}" if part and target != hook else target


def _places(block: Any, cfg: Any, info: ModelInfo, d_ffn: Sequence[int]) -> Iterator[tuple[str, Place]]:
    """Names of hooks that can be edited, those of each architecture and those since version 1."""
    n_kv = int(getattr(cfg, "n_key_value_heads", None) or info.n_heads)
    for hook in SITES:
        canonical = canonical_name(block, hook)
        if canonical is None or not means_the_same(hook, str(cfg.architecture), block.submodules.get("attn")):
            continue
        for layer in range(info.n_layers):
            width = info.d_model
            if hook == "mlp.hook_post":
                width = d_ffn[layer] if layer < len(d_ffn) else 0
            elif hook.startswith("attn."):
                width = int(cfg.d_head) * (n_kv if hook in OF_KEYS_AND_VALUES else info.n_heads)
            for name in (hook, canonical):
                yield f"blocks.{layer}.{name}", Place(hook, layer, width)


def _refuse(max_new_tokens: int, others: Mapping[str, Any]) -> None:
    if max_new_tokens != 1:
        raise NotSupportedError(f"the service runs a text once and generates none; {LOCAL}")
    if others:
        raise NotSupportedError(
            f"the service runs token ids with a mask and takes no {', '.join(sorted(others))}; {LOCAL}"
        )
