"""`intervene=` of TransformerLens' remote bridges: its four operations over hook names, as edits of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from transparent_llm import interventions as made
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.integrations.transformer_lens.refusal import LOCAL
from transparent_llm.integrations.transformer_lens.rows import Rows
from transparent_llm.interventions import Intervention, Site
from transparent_llm.quoting import kind_of, quoted

_KEYS = {"suppress": set[str](), "scale": {"factor"}, "add": {"value"}, "set": {"value"}}
"""Operation -> what it needs beside `op`; `pos` is allowed with all."""

SITES: dict[str, Callable[[int], Site]] = {
    "hook_resid_pre": made.residual_in,
    "hook_resid_post": made.residual_out,
    "hook_attn_out": made.attn_out,
    "hook_mlp_out": made.ffn_out,
    "mlp.hook_post": made.neurons,
    "attn.hook_z": made.head,
    "attn.hook_v": made.value,
    "attn.hook_q": made.query,
    "attn.hook_k": made.key,
    "attn.hook_rot_q": made.query,
    "attn.hook_rot_k": made.key,
}
"""Hook of a block -> the site that is its tensor, of attention with all heads. `hook_resid_mid` is none: in a bridge it
is the input of a norm, and what is changed there is not changed in the stream."""

OF_KEYS_AND_VALUES = ("attn.hook_k", "attn.hook_rot_k", "attn.hook_v")
"""Hooks with an axis of key and value heads, which query heads share."""

BEFORE_ROTARY = (
    ": here it is before rotary embeddings or a factor, while edits are of what attention multiplies (attn.hook_rot_q "
    "and attn.hook_rot_k, where there are such)"
)
"""Why queries and keys may not be edited at a hook."""

_UNROTATED = ("GPT2LMHeadModel", "GPTNeoForCausalLM", "BloomForCausalLM", "MptForCausalLM")
"""Architectures that multiply queries and keys with each other as these hooks have them."""

_ROTATED = "PositionEmbeddingsAttentionBridge"
"""The attention of TransformerLens that goes on with what its hooks after rotary embeddings give."""


def means_the_same(hook: str, architecture: str, attention: object) -> bool:
    """Whether a hook of `SITES` is what attention multiplies: before rotary embeddings and factors it is not."""
    if hook in ("attn.hook_rot_q", "attn.hook_rot_k"):
        return type(attention).__name__ == _ROTATED
    if hook == "attn.hook_k" and architecture == "OPTForCausalLM":  # whose queries are scaled after their hook
        return True
    return hook not in ("attn.hook_q", "attn.hook_k") or architecture in _UNROTATED


@dataclass(frozen=True)
class Place:
    """A hook that can be edited."""

    hook: str
    """By its name since version 1, in the block."""

    layer: int
    width: int

    @property
    def site(self) -> Site:
        """Whose tensor it is."""
        return SITES[self.hook](self.layer)


def edits_of(intervene: Mapping[str, Any], place_of: Callable[[str], Place], rows: Rows) -> list[Intervention]:
    """Edits that do what `intervene` says.

    Args:
        intervene: Hook name -> {"op": "suppress" | "scale" | "add" | "set", "factor" or "value", "pos"}.
        place_of: The place of a hook name; raises where there is none.
        rows: Which are run; `pos` counts in their padded layout.

    Raises:
        NotSupportedError: a function, which is never run on a server.
        InvalidRequestError: an operation, key, value or position that makes no sense.
    """
    return [edit for name, spec in intervene.items() for edit in _edits(name, spec, place_of(name), rows)]


def _edits(name: str, spec: Any, place: Place, rows: Rows) -> Iterator[Intervention]:
    _require_whole(name, spec)
    op, site, value = spec["op"], place.site, _value(name, spec, place)
    for where in _where(name, spec.get("pos"), rows):
        if op == "suppress":
            yield made.zero(site, **where)
        elif op == "scale":
            yield made.scale(site, float(spec["factor"]), **where)
        elif op == "add":
            yield made.add(site, value, **where)
        else:
            yield made.set_to(site, value, **where)


def _require_whole(name: str, spec: Any) -> None:
    if callable(spec):
        raise NotSupportedError(f"{name}: a function is never run on a server; give a dict with op; {LOCAL}")
    if not isinstance(spec, Mapping) or spec.get("op") not in _KEYS:
        raise InvalidRequestError(f"{name}: an intervention is a dict whose op is one of {', '.join(_KEYS)}")
    needed = _KEYS[spec["op"]]
    missing, unknown = needed - set(spec), set(spec) - needed - {"op", "pos"}
    if missing or unknown:
        words = f"needs {', '.join(sorted(missing))}" if missing else f"has no {', '.join(sorted(map(str, unknown)))}"
        raise InvalidRequestError(f"{name}: op {quoted(spec['op'])} {words}")


def _value(name: str, spec: Mapping[str, Any], place: Place) -> torch.Tensor:
    """The vector: a number stands for one that is the same everywhere."""
    value = torch.as_tensor(spec.get("value", 0.0), dtype=torch.float32).reshape(-1)
    if value.numel() not in (1, place.width):
        raise InvalidRequestError(f"{name}: value has {value.numel()} elements, the hook has {place.width}")
    return value.expand(place.width)


def _where(name: str, pos: Any, rows: Rows) -> Iterator[dict[str, Any]]:
    """Rows and positions of them, where the caller's layout may have padding on the left."""
    if pos is None:
        yield {"positions": "all", "rows": "all"}
        return
    listed = [pos] if isinstance(pos, int) and not isinstance(pos, bool) else pos
    if (
        not isinstance(listed, list | tuple)
        or not listed
        or not all(type(each) is int and 0 <= each < rows.length for each in listed)
    ):
        raise InvalidRequestError(
            f"{name}: pos must be positions from 0 to {rows.length - 1}, one or a list, got {kind_of(pos)}"
        )
    for row, (start, length) in enumerate(zip(rows.starts, rows.lengths, strict=True)):
        own = sorted({each - start for each in listed if 0 <= each - start < length})
        if own:
            yield {"positions": own, "rows": [row]}
