"""The second opinion: every value of the contract, computed from a plain Hugging Face model.

Nothing here knows of the library that the engine is built on, and nothing is shared with the engine. Values are
recorded by hooks on Hugging Face's own modules, in eager mode, and what is derived follows the words of the contract
as literally as possible, slowly where that is clearer. Where both computations agree, both read the model right.

Differences between families are in the table `LAYOUTS`; the rest of the module has no `if family`.

Variants in which the residual stream is not "what came in plus what the branches added" (`bloom_post_ln_residual`,
`opt_post_norm`) run and give right logits, but have no meaningful residual values here: the contract has none for
them either, they must be refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from transparent_llm.contract import ModelInfo, TransparentLlm
from transparent_llm.errors import NotRunError

SplitValues = Callable[[Tensor, int, int], Tensor]
"""Output of the projection that makes the values, n_heads, d_head -> values [batch, pos, kv_head, d_head]."""


def split_last(t: Tensor, *sizes: int) -> Tensor:
    """The last axis in several (typed, unlike `Tensor.unflatten`)."""
    return t.reshape(*t.shape[:-1], *sizes)


def values_alone(projected: Tensor, n_heads: int, d_head: int) -> Tensor:
    """A projection of its own for values."""
    return split_last(projected, -1, d_head)


def values_last(projected: Tensor, n_heads: int, d_head: int) -> Tensor:
    """[all queries | all keys | all values]: GPT-2, MPT, Phi-3."""
    n_kv = (projected.shape[-1] // d_head - n_heads) // 2
    return split_last(projected[..., -n_kv * d_head :], n_kv, d_head)


def values_by_group(projected: Tensor, n_heads: int, d_head: int) -> Tensor:
    """For each key-value head its queries, its key, its value: GPT-NeoX and Bloom (one query each), Falcon."""
    n_kv = (projected.shape[-1] // d_head - n_heads) // 2
    return split_last(projected, n_kv, n_heads // n_kv + 2, d_head)[..., -1, :]


@dataclass(frozen=True)
class Layout:
    """Where a family keeps things: paths of modules, from the model or from one block; empty = there is none."""

    blocks: str = "model.layers"
    final_norm: str = "model.norm"
    attn_out: str = "self_attn.o_proj"
    """Projection from the heads to the residual stream."""
    values: str = "self_attn.v_proj"
    split: SplitValues = values_alone
    ffn: str = "mlp"
    """The feed-forward module; in mixtures of experts its input is what router and experts read."""
    ffn_out: str = "mlp.down_proj"
    """Projection from the neurons to the residual stream, unless there are experts."""
    router: str = "mlp.gate"
    between: str = "post_attention_layernorm"
    """Module whose input is the stream between attention and feed-forward; empty in parallel blocks."""
    attn_post_norm: str = ""
    ffn_post_norm: str = ""
    gain_offset: float = 0.0
    """What the post norms add to their weight (1 in Gemma)."""


_LLAMA = Layout()
_POST_NORM = replace(_LLAMA, attn_post_norm="post_attention_layernorm", ffn_post_norm="post_feedforward_layernorm")
_GEMMA_2 = replace(_POST_NORM, between="pre_feedforward_layernorm", gain_offset=1.0)
_TRANSFORMER_H = Layout(blocks="transformer.h", final_norm="transformer.ln_f", between="ln_2")
_BLOOM = replace(
    _TRANSFORMER_H,
    attn_out="self_attention.dense",
    values="self_attention.query_key_value",
    split=values_by_group,
    ffn_out="mlp.dense_4h_to_h",
    between="post_attention_layernorm",
)

LAYOUTS: dict[str, Layout] = {
    "bloom": _BLOOM,
    "cohere": replace(_LLAMA, between=""),
    "falcon": replace(_BLOOM, between=""),
    "gemma": _LLAMA,
    "gemma2": _GEMMA_2,
    "gemma3_text": _GEMMA_2,
    "gpt2": replace(
        _TRANSFORMER_H, attn_out="attn.c_proj", values="attn.c_attn", split=values_last, ffn_out="mlp.c_proj"
    ),
    "gpt_neo": replace(
        _TRANSFORMER_H, attn_out="attn.attention.out_proj", values="attn.attention.v_proj", ffn_out="mlp.c_proj"
    ),
    "gpt_neox": replace(
        _BLOOM,
        blocks="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        attn_out="attention.dense",
        values="attention.query_key_value",
    ),
    "gpt_oss": replace(_LLAMA, router="mlp.router"),
    "gptj": replace(_TRANSFORMER_H, attn_out="attn.out_proj", values="attn.v_proj", ffn_out="mlp.fc_out", between=""),
    "granite": _LLAMA,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _LLAMA,
    "mpt": replace(
        _TRANSFORMER_H,
        blocks="transformer.blocks",
        final_norm="transformer.norm_f",
        attn_out="attn.out_proj",
        values="attn.Wqkv",
        split=values_last,
        ffn="ffn",
        ffn_out="ffn.down_proj",
        between="norm_2",
    ),
    "olmo2": replace(_POST_NORM, between="mlp"),
    "opt": replace(
        _LLAMA,
        blocks="model.decoder.layers",
        final_norm="model.decoder.final_layer_norm",
        attn_out="self_attn.out_proj",
        ffn="fc1",
        ffn_out="fc2",
        between="final_layer_norm",
    ),
    "phi": replace(
        _LLAMA, final_norm="model.final_layernorm", attn_out="self_attn.dense", ffn_out="mlp.fc2", between=""
    ),
    "phi3": replace(_LLAMA, values="self_attn.qkv_proj", split=values_last),
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "qwen3_moe": _LLAMA,
    "stablelm": _LLAMA,
    "starcoder2": replace(_LLAMA, ffn_out="mlp.c_proj"),
}
"""By `config.model_type`."""


def layout_of(config: Any) -> Layout:
    """The family's layout, made parallel where the config says so."""
    layout = LAYOUTS[config.model_type]
    if config.model_type in ("gpt_neox", "stablelm") and config.use_parallel_residual:
        return replace(layout, between="")
    return layout


@dataclass(frozen=True)
class Run:
    """What one forward pass left: outputs of the model, and recorded tensors by (name, layer)."""

    tokens: Tensor
    mask: Tensor
    logits: Tensor
    attentions: tuple[Tensor, ...]
    recorded: dict[tuple[str, int], Tensor]


class Recorder:
    """Copies what passes through modules during one forward pass.

    Copies, since Falcon adds to its feed-forward output in place; with shape [batch, pos, width], since OPT flattens.
    """

    def __init__(self, batch: int, pos: int) -> None:
        self.values: dict[tuple[str, int], Tensor] = {}
        self._shape = (batch, pos, -1)
        self._handles: list[Any] = []

    def watch(self, module: nn.Module, layer: int, *, before: str = "", after: str = "") -> None:
        """Record the module's input under the name `before` and its output under the name `after`."""

        def pre_hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._keep(before, layer, args[0] if args else kwargs["hidden_states"])

        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self._keep(after, layer, output[0] if isinstance(output, tuple) else output)

        if before:
            self._handles.append(module.register_forward_pre_hook(pre_hook, with_kwargs=True))
        if after:
            self._handles.append(module.register_forward_hook(hook))

    def _keep(self, name: str, layer: int, value: Tensor) -> None:
        self.values[name, layer] = value.detach().float().clone().reshape(self._shape)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


@dataclass(frozen=True)
class RoutedToken:
    """What the experts did with one token: the router's weight of each expert (0 = not chosen), all activations."""

    weights: Tensor
    """[expert]"""
    activations: Tensor
    """[expert, d_expert], the router's weight included."""


class HuggingFaceReference(TransparentLlm):
    """The contract, computed from a Hugging Face model. Indices are not checked; results are float32."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "reference",
        prepend_bos: bool = True,
    ) -> None:
        if model.config._attn_implementation != "eager" or model.training or model.dtype != torch.float32:
            raise ValueError("the reference needs a float32 model with attn_implementation='eager', in eval mode")
        self._model: Any = model
        self._config: Any = model.config
        self._tokenizer: Any = tokenizer
        self._name = name
        self._prepend_bos = prepend_bos
        self._layout = layout_of(model.config)
        self._blocks: list[nn.Module] = list(model.get_submodule(self._layout.blocks).children())
        self._run: Run | None = None

    # -- the model itself ---------------------------------------------------------------------------------------

    def model_info(self) -> ModelInfo:
        return ModelInfo(
            name=self._name,
            n_params_estimate=sum(p.numel() for p in self._model.parameters()),
            n_layers=len(self._blocks),
            n_heads=self._n_heads,
            d_model=self._config.hidden_size,
            d_vocab=self._unembedding.weight.shape[0],
        )

    @property
    def _n_heads(self) -> int:
        return int(self._config.num_attention_heads)

    @property
    def _unembedding(self) -> Any:
        return self._model.get_output_embeddings()

    def _module(self, layer: int, path: str) -> Any:
        return self._blocks[layer].get_submodule(path)

    def _has_experts(self, layer: int) -> bool:
        return hasattr(self._module(layer, self._layout.ffn), "experts")

    # -- running ------------------------------------------------------------------------------------------------

    def run(self, sentences: list[str]) -> None:
        start = [self._tokenizer.bos_token_id] if self._prepend_bos else []
        self.run_tokens([start + self._tokenizer.encode(s, add_special_tokens=False) for s in sentences])

    def run_tokens(self, rows: list[list[int]]) -> None:
        """`run` for sentences that are tokens already; nothing is put in front of them.

        Every row by itself, so that none can change what another gives: that is what its values *are*.
        """
        n_pos, alone = max(len(row) for row in rows), [self._run_alone(row) for row in rows]
        pad = self._tokenizer.pad_token_id or 0
        tokens = torch.tensor([row + [pad] * (n_pos - len(row)) for row in rows])
        mask = torch.tensor([[p < len(row) for p in range(n_pos)] for row in rows])
        attentions = [_padded([run.attentions[i] for run in alone], n_pos, 2) for i in range(len(alone[0].attentions))]
        recorded = {key: _padded([run.recorded[key] for run in alone], n_pos) for key in alone[0].recorded}
        logits = _padded([run.logits for run in alone], n_pos)
        self._run = Run(tokens, mask, logits, tuple(attentions), recorded)

    def _run_alone(self, row: list[int]) -> Run:
        tokens, recorder = torch.tensor([row]), Recorder(1, len(row))
        try:
            self._watch_all(recorder)
            with torch.no_grad():
                out = self._model(input_ids=tokens, output_attentions=True, use_cache=False)
        finally:
            recorder.close()
        attentions = tuple(a.float() for a in out.attentions)
        return Run(tokens, torch.ones_like(tokens).bool(), out.logits.float(), attentions, recorder.values)

    def _watch_all(self, recorder: Recorder) -> None:
        layout = self._layout
        for layer, block in enumerate(self._blocks):
            recorder.watch(block, layer, before="residual_in", after="residual_out")
            recorder.watch(self._module(layer, layout.values), layer, after="values")
            recorder.watch(self._module(layer, layout.attn_out), layer, before="heads", after="attn_raw")
            if self._has_experts(layer):
                recorder.watch(self._module(layer, layout.ffn), layer, before="ffn_in", after="ffn_raw")
            else:
                recorder.watch(self._module(layer, layout.ffn_out), layer, before="neurons", after="ffn_raw")
            if layout.between:
                recorder.watch(self._module(layer, layout.between), layer, before="between")
            for branch, norm in (("attn", layout.attn_post_norm), ("ffn", layout.ffn_post_norm)):
                if norm:
                    recorder.watch(
                        self._module(layer, norm), layer, before=f"{branch}_norm_in", after=f"{branch}_norm_out"
                    )

    def _current(self) -> Run:
        if self._run is None:
            raise NotRunError("call run() first")
        return self._run

    def _recorded(self, name: str, layer: int) -> Tensor:
        return self._current().recorded[name, layer]

    # -- tokens and logits --------------------------------------------------------------------------------------

    def batch_size(self) -> int:
        return self._current().tokens.shape[0]

    def tokens(self) -> Tensor:
        return self._current().tokens

    def mask(self) -> Tensor:
        """[batch, pos], True where a token is real and not padding."""
        return self._current().mask

    def tokens_to_strings(self, tokens: Tensor) -> list[str]:
        return [self._token_to_string(int(token)) for token in tokens]

    def _token_to_string(self, token: int) -> str:
        if self._tokenizer.convert_ids_to_tokens(token) is None:
            return f"<unused:{token}>"
        text = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def logits(self) -> Tensor:
        return self._current().logits

    def unembed(self, t: Tensor, normalize: bool) -> Tensor:
        with torch.no_grad():
            t = t.to(self._model.dtype)
            if not normalize:
                raw: Tensor = self._unembedding(t)
                return raw
            final_norm = attrgetter(self._layout.final_norm)(self._model)
            normed = t if final_norm is None else final_norm(t)  # None in models that norm after each branch
            return self._postprocess(self._unembedding(normed))

    def _postprocess(self, logits: Tensor) -> Tensor:
        """What the model itself does to logits; each of these belongs to one or two families."""
        logits = logits / getattr(self._config, "logits_scaling", 1.0)
        if self._config.model_type == "cohere":
            logits = logits * self._config.logit_scale
        cap = getattr(self._config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    # -- the residual stream ------------------------------------------------------------------------------------

    def residual_in(self, layer: int) -> Tensor:
        return self._recorded("residual_in", layer)

    def residual_after_attn(self, layer: int) -> Tensor:
        return self.residual_in(layer) + self._branch("attn", layer)

    def stream_between(self, layer: int) -> Tensor | None:
        """The tensor that the model really has between the two branches; None in parallel blocks.

        `residual_after_attn` must equal it, which checks that the attention branch was read completely.
        """
        return self._recorded("between", layer) if self._layout.between else None

    def residual_out(self, layer: int) -> Tensor:
        return self._recorded("residual_out", layer)

    def _branch(self, branch: str, layer: int) -> Tensor:
        """All that a branch ("attn" or "ffn") added to the stream: [batch, pos, d_model]."""
        has_norm = (f"{branch}_norm_out", layer) in self._current().recorded
        return self._recorded(f"{branch}_norm_out" if has_norm else f"{branch}_raw", layer) * self._multiplier

    @property
    def _multiplier(self) -> float:
        """Granite scales both branches before it adds them."""
        return float(getattr(self._config, "residual_multiplier", 1.0))

    def _gain(self, branch: str, layer: int) -> Tensor:
        """What a part of a branch is multiplied with on its way into the stream: [batch, pos, d_model] or [1, 1, 1].

        A norm after the branch divides by the root mean square of the whole branch in this run and multiplies by its
        weight; taken as that fixed factor, it applies to each part alone.
        """
        path = self._layout.attn_post_norm if branch == "attn" else self._layout.ffn_post_norm
        if not path:
            return torch.full((1, 1, 1), self._multiplier)
        norm = self._module(layer, path)
        eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
        rms: Tensor = (self._recorded(f"{branch}_norm_in", layer).square().mean(-1, keepdim=True) + eps).sqrt()
        weight: Tensor = norm.weight.float() + self._layout.gain_offset
        gain: Tensor = weight / rms * self._multiplier
        return gain

    def _gain_at(self, branch: str, layer: int, batch_i: int, pos: int) -> Tensor:
        return self._gain(branch, layer).expand(*self.tokens().shape, -1)[batch_i, pos]

    # -- attention ----------------------------------------------------------------------------------------------

    def attention_matrix(self, batch_i: int, layer: int, head: int) -> Tensor:
        return self._current().attentions[layer][batch_i, head]

    def attention_output(self, batch_i: int, layer: int, pos: int, head: int | None = None) -> Tensor:
        if head is None:
            return self._branch("attn", layer)[batch_i, pos]
        heads = self._recorded("heads", layer)[batch_i, pos].reshape(self._n_heads, -1)
        only_this = torch.zeros_like(heads)
        only_this[head] = heads[head]
        projected = only_this.flatten() @ self._output_rows(layer, self._layout.attn_out)
        return projected * self._gain_at("attn", layer, batch_i, pos)

    def decomposed_attn(self, batch_i: int, layer: int) -> Tensor:
        rows = self._output_rows(layer, self._layout.attn_out).reshape(self._n_heads, -1, self._config.hidden_size)
        values = self._values(layer)[batch_i]
        gain = self._gain("attn", layer).expand(*self.tokens().shape, -1)[batch_i]
        per_head = []
        for head in range(self._n_heads):
            moved = values[:, head] @ rows[head]  # [source, d_model]
            probabilities = self.attention_matrix(batch_i, layer, head)  # [target, source]
            per_head.append(probabilities[:, :, None] * moved[None, :, :] * gain[:, None, :])
        return torch.stack(per_head, dim=2)

    def _values(self, layer: int) -> Tensor:
        """[batch, pos, head, d_head], shared key-value heads repeated for each query head that reads them."""
        d_head = self._output_rows(layer, self._layout.attn_out).shape[0] // self._n_heads
        values = self._layout.split(self._recorded("values", layer), self._n_heads, d_head)
        return values.repeat_interleave(self._n_heads // values.shape[2], dim=2)

    def _output_rows(self, layer: int, path: str) -> Tensor:
        """Weight of an output projection as [in, d_model], whichever way the module stores it."""
        module = self._module(layer, path)
        weight: Tensor = module.weight.float()
        return weight if isinstance(module, Conv1D) else weight.T

    def attention_bias(self, batch_i: int, layer: int, pos: int) -> Tensor:
        """What the output bias, which belongs to no head, added to the stream: zeros where there is none."""
        return self._bias(layer, self._layout.attn_out) * self._gain_at("attn", layer, batch_i, pos)

    def _bias(self, layer: int, path: str) -> Tensor:
        bias: Tensor | None = self._module(layer, path).bias
        return torch.zeros(self._config.hidden_size) if bias is None else bias.float()

    # -- feed-forward -------------------------------------------------------------------------------------------

    def ffn_out(self, layer: int) -> Tensor:
        return self._branch("ffn", layer)

    def neuron_activations(self, batch_i: int, layer: int, pos: int) -> Tensor:
        if self._has_experts(layer):
            return self._routed(batch_i, layer, pos).activations.flatten()
        return self._recorded("neurons", layer)[batch_i, pos]

    def neuron_output(self, layer: int, neuron: int) -> Tensor:
        return self._neuron_rows(layer)[neuron]

    def decomposed_ffn_out(self, batch_i: int, layer: int, pos: int) -> Tensor:
        activations = self.neuron_activations(batch_i, layer, pos)
        return activations[:, None] * self._neuron_rows(layer) * self._gain_at("ffn", layer, batch_i, pos)

    def ffn_bias(self, batch_i: int, layer: int, pos: int) -> Tensor:
        """What output biases, which belong to no neuron, added to the stream: zeros where there are none."""
        if not self._has_experts(layer):
            return self._bias(layer, self._layout.ffn_out) * self._gain_at("ffn", layer, batch_i, pos)
        biases: Tensor | None = getattr(self._experts(layer), "down_proj_bias", None)
        if biases is None:
            return torch.zeros(self._config.hidden_size)
        weights = self._routed(batch_i, layer, pos).weights
        return (weights[:, None] * biases.float()).sum(0) * self._gain_at("ffn", layer, batch_i, pos)

    def _neuron_rows(self, layer: int) -> Tensor:
        """[neuron, d_model], the neurons of all experts one expert after the other."""
        if not self._has_experts(layer):
            return self._output_rows(layer, self._layout.ffn_out)
        down: Tensor = self._experts(layer).down_proj.float()
        by_neuron = down if self._is_gpt_oss else down.transpose(1, 2)
        return by_neuron.flatten(0, 1)

    # -- mixtures of experts ------------------------------------------------------------------------------------

    def _experts(self, layer: int) -> Any:
        return self._module(layer, self._layout.ffn).experts

    @property
    def _is_gpt_oss(self) -> bool:
        """Its experts store [in, out], have biases, and gate in a way of their own."""
        return bool(self._config.model_type == "gpt_oss")

    def _routed(self, batch_i: int, layer: int, pos: int) -> RoutedToken:
        """Send one token through the layer's own router and expert weights, expert by expert."""
        x = self._recorded("ffn_in", layer)[batch_i, pos]
        with torch.no_grad():
            _, weights, chosen = self._module(layer, self._layout.router)(x[None])
            experts = self._experts(layer)
            activate = _gpt_oss_neurons if self._is_gpt_oss else _gated_neurons
            all_weights = torch.zeros(experts.num_experts)
            rows = [torch.zeros(experts.intermediate_size if self._is_gpt_oss else experts.intermediate_dim)]
            rows = rows * experts.num_experts
            for weight, expert in zip(weights[0], chosen[0], strict=True):
                all_weights[expert] = weight
                rows[expert] = weight * activate(experts, int(expert), x)
        return RoutedToken(all_weights, torch.stack(rows))


def _gated_neurons(experts: Any, expert: int, x: Tensor) -> Tensor:
    """Mixtral, Qwen: the first half of the rows is the gate, the second half is gated."""
    gate, up = F.linear(x, experts.gate_up_proj[expert]).chunk(2)
    activated: Tensor = experts.act_fn(gate) * up
    return activated


def _gpt_oss_neurons(experts: Any, expert: int, x: Tensor) -> Tensor:
    """gpt-oss: gate and up alternate, both are clamped, and one is added to the part that is gated."""
    gate_up = x @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
    gate = gate_up[0::2].clamp(max=experts.limit)
    up = gate_up[1::2].clamp(min=-experts.limit, max=experts.limit)
    activated: Tensor = gate * torch.sigmoid(experts.alpha * gate) * (up + 1)
    return activated


def _padded(rows: list[Tensor], n_pos: int, axes: int = 1) -> Tensor:
    """[1, pos, ...] of each row as one [batch, pos, ...], zeros in padding; with two axes [1, head, pos, pos]."""
    missing = [n_pos - row.shape[-1 if axes == 2 else 1] for row in rows]
    widths = [(0, more, 0, more) if axes == 2 else (0, 0, 0, more) for more in missing]
    return torch.cat([F.pad(row, width) for row, width in zip(rows, widths, strict=True)])
