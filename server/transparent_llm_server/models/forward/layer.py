"""One block of a model: where its tensors pass, in the bridge and in the plain model, and its weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch

from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.forward.capture import LayerCapture
from transparent_llm_server.models.forward.head_weights import HeadWeights, head_weights
from transparent_llm_server.models.forward.neurons import DenseNeurons, ExpertNeurons, Materialize, Neurons, unbridged
from transparent_llm_server.models.forward.norms import Norm
from transparent_llm_server.models.forward.tap_candidates import Heads, candidates, norm_taps
from transparent_llm_server.models.forward.taps import Tap
from transparent_llm_server.models.values.decompositions import ByRows
from transparent_llm_server.models.values.value import Stored, Value

if TYPE_CHECKING:
    from transformer_lens.model_bridge.generalized_components import BlockBridge

_OF_POSITIONS = ("attn_out", "ffn_out", "neurons")
"""[batch pos ...], which some families compute with one axis for both."""


@dataclass(frozen=True)
class LayerPlace:
    """Where the values of a block are made, and how its weights are read there."""

    device: torch.device
    dtype: torch.dtype
    materialized: Materialize


class Layer:
    """Block `index`. Heads, neurons and norms that the architecture does not have are None."""

    def __init__(self, block: BlockBridge, index: int, place: LayerPlace, hook_names: Collection[str]) -> None:
        self._block = block
        self._place = place
        self._attn = getattr(block, "attn", None)
        self.n_kv_heads = 0
        """Key and value heads, which query heads share; known after a first pass."""

        self._known_norms: dict[str, Norm | None] = {}
        self.is_parallel = f"blocks.{index}.hook_resid_mid" not in hook_names
        """Attention and feed-forward read the same input; no tensor exists between them."""

        multiplier = float(getattr(block, "residual_contribution_scale", 1.0))
        self.multiplier = None if multiplier == 1.0 else multiplier
        self.neurons, neuron_hook = self._find_neurons()
        suffixes = {
            "residual_in": "hook_resid_pre",
            "attn_out": "hook_attn_out",
            "ffn_out": "hook_mlp_out",
            "pattern": "attn.hook_pattern",
            "value": "attn.hook_v",
            "attn_scale": "ln1_post.hook_scale",
            "ffn_scale": "ln2_post.hook_scale",
            "neurons": neuron_hook,
        }
        named = {field: f"blocks.{index}.{suffix}" for field, suffix in suffixes.items() if suffix}
        self.hooks = {field: name for field, name in named.items() if name in hook_names}
        """Field of LayerCapture -> name of the bridge's hook that shows it."""

    def capture(self, shown: Mapping[str, torch.Tensor], batch_pos: Sequence[int]) -> LayerCapture:
        """What a forward pass of so many rows and positions showed of this block: field -> tensor."""
        # The stream comes from the block before, which may lie on another device.
        found = {
            field: _compact(self.shaped(field, tensor, batch_pos).to(self._place.device))
            for field, tensor in shown.items()
        }
        absent = dict.fromkeys(LayerCapture.__dataclass_fields__.keys() - found.keys())
        return LayerCapture(**found, **absent)  # type: ignore[arg-type]  # residual_in is never absent

    def shaped(self, field: str, tensor: torch.Tensor, batch_pos: Sequence[int]) -> torch.Tensor:
        """As a capture holds it."""
        if not field.endswith(("_scale", "_is_edited", "_factor", "_index")):  # norms divide in float32
            tensor = tensor.to(self._place.dtype)  # some families have the pattern in float32 before its cast
        if field in ("value", "z"):
            return tensor.reshape(*batch_pos, -1, self.heads.d_head)
        return tensor.reshape(*batch_pos, -1) if field in _OF_POSITIONS else tensor

    def as_captured(self, field: str, shown: torch.Tensor) -> torch.Tensor:
        """A tensor of the bridge, which has heads before positions in multi-head latent attention."""
        is_latent = field == "value" and type(self._attn).__name__ == "MLAAttentionBridge"
        return shown.transpose(1, 2) if is_latent else shown

    def taps(self) -> Mapping[str, list[Tap]]:
        """Field -> where the plain model may show it, the likeliest first."""
        has_experts = isinstance(self.neurons, ExpertNeurons)
        heads = self.heads if self.has_heads else None
        found = candidates(self._block, heads, self.multiplier, has_experts=has_experts)
        return {**found, **norm_taps(self.norms)}

    @property
    def plain(self) -> torch.nn.Module:
        """The block in the plain model."""
        module: torch.nn.Module = unbridged(self._block)
        return module

    @property
    def dtype(self) -> torch.dtype:
        """Of its values."""
        return self._place.dtype

    @property
    def has_heads(self) -> bool:
        """Whether this block attends with heads whose parts can be told apart."""
        return {"pattern", "value", "attn_out"} <= self.hooks.keys()

    @cached_property
    def heads(self) -> Heads:
        """How many there are and how wide, where it has some: read once, as weights may have to be materialized."""
        return Heads(*self.w_o.shape[:2])

    @property
    def w_o(self) -> torch.Tensor:
        """Output weights of the heads [head d_head d_model]."""
        with self._place.materialized(self._attn):
            weight: torch.Tensor = self._attn.W_O  # type: ignore[union-attr]
            return weight.detach()

    def head_weights(self) -> HeadWeights:
        """The weights of all heads, for queries, keys and values too; may be views of the model's memory.

        Raises:
            UnreadableError: they are not there, each for one head or for some that share them.
        """
        with self._place.materialized(self._attn):
            return head_weights(self._attn, self.w_o)

    def output_projection(self, z: torch.Tensor) -> torch.Tensor:
        """What the output weights and bias make of all heads' vectors [... head * d_head], with no hook of ours."""
        projected: torch.Tensor = unbridged(self._attn.o).forward(z)  # type: ignore[union-attr]
        return projected

    @property
    def b_o(self) -> torch.Tensor | float:
        """Output bias of attention [d_model], which belongs to no head."""
        with self._place.materialized(self._attn):
            bias = getattr(self._attn, "b_O", None)
            return 0.0 if bias is None else wide(torch.as_tensor(bias).detach())

    def attn_gain(self, capture: LayerCapture, batch_i: int) -> Value | None:
        """What lies between attention and the residual stream, in float32: a scalar, a factor for each position
        [pos d_model], or nothing."""
        return self._gain("ln1_post", capture, capture.attn_scale, batch_i)

    def ffn_gain(self, capture: LayerCapture, batch_i: int) -> Value | None:
        """The same for the feed-forward part."""
        return self._gain("ln2_post", capture, capture.ffn_scale, batch_i)

    @cached_property
    def norms(self) -> Mapping[str, torch.nn.Module]:
        """The plain norms: before attention and the feed-forward part ("attn", "ffn"), and between them and the
        stream ("attn_post", "ffn_post")."""
        names = {"attn": "ln1", "ffn": "ln2", "attn_post": "ln1_post", "ffn_post": "ln2_post"}
        found = {place: unbridged(getattr(self._block, name, None)) for place, name in names.items()}
        if self.is_parallel and found["ffn"] is None:  # both read what one norm gives
            found["ffn"] = found["attn"]
        return {place: norm for place, norm in found.items() if isinstance(norm, torch.nn.Module)}

    def norm(self, place: str) -> Norm | None:
        """One of these, if it is known how it computes."""
        if place not in self._known_norms:
            module = self.norms.get(place)
            known = None if module is None else Norm.of(module, self._place.dtype, self._place.materialized)
            self._known_norms[place] = known
        return self._known_norms[place]

    @property
    def head_modules(self) -> list[torch.nn.Module]:
        """Whose weights the parts of heads are made with."""
        return _present(getattr(self._attn, "o", self._attn), getattr(self._block, "ln1_post", None))

    @property
    def neuron_modules(self) -> list[torch.nn.Module]:
        """Whose weights the parts of neurons are made with."""
        return _present(getattr(self._block, "mlp", None), getattr(self._block, "ln2_post", None))

    def forget(self) -> None:
        """Drop the attention pattern that some bridges keep of their last forward pass."""
        if getattr(self._attn, "_pattern", None) is not None:
            self._attn._pattern = None  # type: ignore[union-attr]

    def _gain(self, norm_name: str, capture: LayerCapture, scale: torch.Tensor | None, batch_i: int) -> Value | None:
        """Post-norm models: linear given the scale that the norm had in this run."""
        if scale is None:
            return None if self.multiplier is None else Stored(torch.tensor(self.multiplier, dtype=torch.float32))
        n_pos, d_model = capture.residual_in.shape[1:]
        return ByRows((n_pos, d_model), torch.float32, partial(self._gain_rows, norm_name, scale[batch_i]))

    def _gain_rows(self, norm_name: str, scale: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        norm = getattr(self._block, norm_name)
        with self._place.materialized(norm):
            weight = norm.weight.detach().float()
        weight = 1.0 + weight if norm.uses_weight_offset else weight
        gain: torch.Tensor = weight / scale[start:stop].float()
        return gain if self.multiplier is None else self.multiplier * gain

    def _find_neurons(self) -> tuple[Neurons | None, str | None]:
        """The neurons, and the hook that says what they did."""
        mlp = getattr(self._block, "mlp", None)
        if mlp is None:
            return None, None
        if type(mlp).__name__ == "MoEBridge" and not mlp.bound_dense:
            experts = getattr(unbridged(mlp), "experts", None)
            known = all(hasattr(unbridged(experts), name) for name in ("gate_up_proj", "down_proj"))
            return (ExpertNeurons(unbridged(mlp), self._place.materialized), "mlp.hook_in") if known else (None, None)
        try:
            return DenseNeurons(mlp, self._place.materialized), "mlp.hook_post"
        except AttributeError:  # a bridge without a single W_out
            return None, None


def _present(*modules: object) -> list[torch.nn.Module]:
    return [module for module in modules if isinstance(module, torch.nn.Module)]


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """In memory of its own where it would keep alive what nobody reads: a third of fused queries, keys and values."""
    return (
        tensor
        if tensor.untyped_storage().nbytes() <= tensor.nbytes
        else tensor.clone(memory_format=torch.contiguous_format)
    )
