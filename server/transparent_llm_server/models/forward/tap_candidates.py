"""Where the tensors of a layer may be taken from, by TransformerLens' map of it: each family has one of these ways.

Which of them it is, is not looked up but found out: what a candidate takes must equal what the bridge shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from transparent_llm_server.models.forward.neurons import unbridged
from transparent_llm_server.models.forward.taps import Pick, Tap, replaced

if TYPE_CHECKING:
    from transformer_lens.model_bridge.generalized_components import BlockBridge


@dataclass(frozen=True)
class Heads:
    """How wide the vectors of a layer's heads are."""

    n_heads: int
    d_head: int


def candidates(
    block: BlockBridge, heads: Heads | None, multiplier: float | None, *, has_experts: bool
) -> Mapping[str, list[Tap]]:
    """Field of `LayerCapture` -> where it may pass in a block, the likeliest first.

    Args:
        block: The bridge of the block.
        heads: Its heads, where it has some.
        multiplier: What the block multiplies its branches by before it adds them to the residual stream.
        has_experts: Whether its feed-forward part is a mixture of experts.
    """
    plain, attn, mlp = unbridged(block), getattr(block, "attn", None), getattr(block, "mlp", None)
    out = _part(mlp, "out")
    return {
        "residual_in": [Tap(plain, _tensor, at_input=True)],
        "residual_out": [Tap(plain, _first)],
        "attn_out": _branch([_part(block, "ln1_post"), unbridged(attn), _part(attn, "o")], multiplier),
        "ffn_out": _branch([_part(block, "ln2_post"), unbridged(mlp), out], multiplier),
        "pattern": [Tap(module, _pattern, put=_more) for module in _modules(unbridged(attn))],
        "value": [] if heads is None else list(_values(attn, heads)),
        "attn_scale": _scales(getattr(block, "ln1_post", None)),
        "ffn_scale": _scales(getattr(block, "ln2_post", None)),
        "z": [Tap(module, _tensor, at_input=True, is_optional=True) for module in _modules(_part(attn, "o"))],
        "experts_out": [Tap(unbridged(mlp), _first, is_optional=True)] if has_experts else [],
        "neurons": [Tap(module, _tensor, at_input=True) for module in _modules(unbridged(mlp) if has_experts else out)],
    }


def norm_taps(norms: Mapping[str, torch.nn.Module]) -> Mapping[str, list[Tap]]:
    """What norms are given and what they give, which is looked at where they are edited."""
    given = {f"{place}_norm_in": [Tap(norm, _tensor, at_input=True, is_optional=True)] for place, norm in norms.items()}
    gives = {f"{place}_norm_out": [Tap(norm, _tensor, is_optional=True)] for place, norm in norms.items()}
    return {**given, **gives}


def _branch(found: list[Any], multiplier: float | None) -> list[Tap]:
    """What is added to the residual stream is the output of one of these, or that many times it."""
    if multiplier is None:
        return [Tap(module, _first) for module in _modules(*found)]
    return [
        Tap(module, partial(_multiplied, multiplier), put=partial(_divided, multiplier)) for module in _modules(*found)
    ]


def _values(attn: Any, heads: Heads) -> Iterator[Tap]:
    """Their own projection, after its norm if it has one; or a part of a fused one."""
    plain = unbridged(attn)
    for module in _modules(getattr(plain, "v_norm", None), _part(attn, "v")):
        yield Tap(module, _tensor)
    for module in _modules(_part(attn, "qkv"), _part(attn, "kv_b"), getattr(plain, "kv_b_proj", None)):
        for part in _PARTS_OF_FUSED:
            pick = partial(part, heads)
            yield Tap(module, pick, put=partial(_put_part, pick))


def _last_part(heads: Heads, fused: torch.Tensor) -> torch.Tensor | None:
    """Queries, then keys, then as many values: what is no query is keys and values in equal parts."""
    n_rest = fused.shape[-1] - heads.n_heads * heads.d_head
    return fused[..., -(n_rest // 2) :] if n_rest > 0 and n_rest % (2 * heads.d_head) == 0 else None


def _of_each_head(heads: Heads, fused: torch.Tensor) -> torch.Tensor | None:
    """A query, a key and a value for one head after the other; or a value last, of multi-head latent attention."""
    if fused.shape[-1] % heads.n_heads or fused.shape[-1] // heads.n_heads <= heads.d_head:
        return None
    return fused.view(*fused.shape[:-1], heads.n_heads, -1)[..., -heads.d_head :]


def _put_part(pick: Pick, fused: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """With another part."""
    made = fused.clone()
    part = pick(made)
    assert part is not None  # as it was there
    part.copy_(tensor.reshape(part.shape))
    return made


_PARTS_OF_FUSED: tuple[Callable[[Heads, torch.Tensor], torch.Tensor | None], ...] = (_last_part, _of_each_head)


def _scales(norm: Any) -> list[Tap]:
    """What a norm after a branch divides by, as it is given what it divides."""
    plain = unbridged(norm)
    eps = next((float(getattr(plain, name)) for name in ("variance_epsilon", "eps") if hasattr(plain, name)), None)
    return [] if eps is None else [Tap(plain, partial(_root_mean_square, eps), at_input=True)]


def _root_mean_square(eps: float, x: Any) -> torch.Tensor | None:
    return (x.float().pow(2).mean(-1, keepdim=True) + eps).sqrt() if isinstance(x, torch.Tensor) else None


def _tensor(passing: Any) -> torch.Tensor | None:
    return passing if isinstance(passing, torch.Tensor) else None


def _first(output: Any) -> torch.Tensor | None:
    return _tensor(output[0] if isinstance(output, tuple | list) else output)


def _multiplied(multiplier: float, output: Any) -> torch.Tensor | None:
    found = _first(output)
    return None if found is None else found * multiplier


def _divided(multiplier: float, output: Any, tensor: torch.Tensor) -> Any:
    return replaced(output, tensor / multiplier)


def _more(output: Any, added: torch.Tensor) -> Any:
    """With more attention output, which is what another pattern comes to."""
    return replaced(output, output[0] + added)


def _pattern(output: Any) -> torch.Tensor | None:
    """The attention probabilities that a module returns beside its output."""
    parts = output[1:] if isinstance(output, tuple | list) else ()
    return next((part for part in parts if isinstance(part, torch.Tensor) and part.ndim == 4), None)


def _part(bridge: Any, name: str) -> Any:
    return unbridged(getattr(bridge, name, None))


def _modules(*found: Any) -> list[torch.nn.Module]:
    """Those that the family has, each once."""
    return list(dict.fromkeys(module for module in found if isinstance(module, torch.nn.Module)))
