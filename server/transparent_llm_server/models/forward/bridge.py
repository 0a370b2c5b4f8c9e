"""A model seen through TransformerLens' bridge: run a batch, keep the minimal set of tensors.

The bridge changes no weight: what is captured is what the Hugging Face model computes.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server.models.families import finish_logits
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled
from transparent_llm_server.models.forward.capture import Capture
from transparent_llm_server.models.forward.edits import EditDetector, count_writes
from transparent_llm_server.models.forward.layer import Layer, LayerPlace
from transparent_llm_server.models.forward.neurons import Materialize, unbridged
from transparent_llm_server.models.forward.processors import no_processors
from transparent_llm_server.models.forward.regimes import Regimes
from transparent_llm_server.models.loading.refusal import refusing
from transparent_llm_server.models.placement.layout import DeviceLayout
from transparent_llm_server.models.placement.materialize import MaterializedWeights
from transparent_llm_server.models.placement.quantization import plain_parts

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class BridgedModel:
    """Takes `hf_model` over, in place. Forward passes are serialised: hooks are shared state."""

    def __init__(
        self,
        hf_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        layout: DeviceLayout,
        dtype: torch.dtype,
        regimes: Regimes,
    ) -> None:
        if any(hasattr(module, "original_component") for module in hf_model.modules()):
            raise InvalidRequestError("hf_model is already bridged; load it again, as a bridge takes it over in place")
        count_writes(hf_model)
        self.architecture = type(hf_model).__name__
        self.n_params = sum(parameter.numel() for parameter in hf_model.parameters())
        self.layout, self.dtype = layout, dtype
        self.regimes = regimes
        """Which rows may share a forward pass."""

        self.device = entry_device(hf_model, layout)
        """Where the model takes its tokens."""

        self._last_device = layout.device(_name_of(hf_model, hf_model.get_output_embeddings()))
        self._bridge = _bridged(hf_model, tokenizer, self.device, dtype)
        self._bridge.eval()
        hf_model.requires_grad_(False)  # the bridge may have split weights into new ones
        self._hf = hf_model
        self._materialized = MaterializedWeights(hf_model)
        cfg = self._bridge.cfg
        self.n_heads, self.d_model, self.d_vocab = int(cfg.n_heads), int(cfg.d_model), int(cfg.d_vocab)
        self.wants_bos = bool(cfg.default_prepend_bos)
        hook_names = self._bridge.hook_dict.keys()
        blocks = str(self._bridge.adapter.component_mapping["blocks"].name)
        layout.require_whole(blocks)
        self.places = [layout.place(f"{blocks}.{i}") for i in range(len(self._bridge.blocks))]
        """Where the weights of each layer lie."""

        self.layers = [
            Layer(block, i, LayerPlace(layout.device(f"{blocks}.{i}"), dtype, self._materialized), hook_names)
            for i, block in enumerate(self._bridge.blocks)
        ]
        for block in self._bridge.blocks:
            block.register_forward_pre_hook(raise_if_cancelled)
        self._last = f"blocks.{len(self.layers) - 1}.hook_resid_post"
        self._names = [self._last, *(name for layer in self.layers for name in layer.hooks.values())]
        self._is_captured = frozenset(self._names).__contains__  # a list would hook every alias as well
        takes_few = "logits_to_keep" in inspect.signature(hf_model.forward).parameters
        self._few_logits = {"logits_to_keep": 1} if takes_few else {}  # they are derived when somebody asks
        self._require_streams(hook_names)
        self.edits = EditDetector(hf_model, can_watch=not self._materialized.is_needed)
        """Whether it is still what was loaded. Weights that are materialized where they are used cannot be watched."""

    def watch(self) -> None:
        """Notice from here on what others do to it."""
        of_layers = [module for layer in self.layers for module in (*layer.head_modules, *layer.neuron_modules)]
        self.edits.start([*self.final_modules, *of_layers])

    @property
    def final_modules(self) -> list[torch.nn.Module]:
        """Whose weights logits are made with."""
        return [self._bridge.ln_final, self._bridge.unembed]

    @property
    def materialized(self) -> Materialize:
        """Within it, the weights of the modules that it is given can be read."""
        return self._materialized

    @property
    def materializes(self) -> bool:
        """Whether its weights must be made ready to be read, which is some work, and nobody else's meanwhile."""
        return self._materialized.is_needed

    @property
    def text_config(self) -> PretrainedConfig:
        """The configuration of the language model."""
        return self._hf.config.get_text_config()

    @property
    def weight_bytes(self) -> int:
        """What parameters and buffers take of memory, storage that several share counted once."""
        tensors = (*self._hf.parameters(), *self._hf.buffers())
        held = [part for tensor in tensors for part in plain_parts(tensor)]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held if not t.is_meta}
        return sum(storages.values())

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> Capture:
        """Run one padded batch [batch pos] with its mask and keep what the values need."""
        with self._materialized.lock, _evaluating(self._hf):
            generation = self.edits.check()
            self.edits.require_no_hooks()
            try:
                _, cache = self._bridge.run_with_cache(
                    tokens.to(self.device),
                    attention_mask=mask.to(self.device, torch.int64),
                    names_filter=self._is_captured,
                    return_cache_object=False,
                    output_attentions=False,
                    **self._few_logits,
                )
            finally:
                for layer in self.layers:
                    layer.forget()
        silent = [name for name in self._names if name not in cache]
        if silent:
            raise ModelRefusedError(
                f"hooks {', '.join(silent[:3])} exist but did not fire; {self.architecture} is not served"
            )
        layers = tuple(layer.capture(cache) for layer in self.layers)
        self.edits.require_unchanged(generation)  # nobody has changed the model while it ran
        return Capture(tokens, mask, layers, cache[self._last], generation)

    def unembed(self, residual: torch.Tensor, *, normalize: bool, tokens: range) -> torch.Tensor:
        """Scores [n tokens] of residual vectors [n d_model] for consecutive tokens of the vocabulary; with `normalize`,
        the model's own output."""
        x = residual.to(self._last_device, self.dtype)[None]
        with self._materialized(self._bridge.ln_final, self._bridge.unembed):
            if normalize:
                x = unbridged(self._bridge.ln_final)(x)
            scores = _scores(unbridged(self._bridge.unembed), x, tokens)[0]
        return finish_logits(scores, self.text_config) if normalize else scores

    def _require_streams(self, hook_names: Collection[str]) -> None:
        missing = [self._last] if self._last not in hook_names else []
        missing += [
            f"blocks.{i}.hook_resid_pre" for i, layer in enumerate(self.layers) if "residual_in" not in layer.hooks
        ]
        for part in ("ln_final", "unembed"):
            if not hasattr(self._bridge, part):
                missing.append(part)
        if missing:
            raise ModelRefusedError(
                f"{self.architecture} has no {', '.join(missing[:4])} under TransformerLens, so its residual stream "
                "cannot be read. The model is not served.",
                metadata={"missing": ", ".join(missing)},
            )


def _scores(unembedding: Any, x: torch.Tensor, tokens: range) -> torch.Tensor:
    """The product with the columns of these tokens alone, where the module is a plain one that can be cut."""
    is_plain = type(unembedding) is torch.nn.Linear and type(unembedding.weight) in (torch.Tensor, torch.nn.Parameter)
    part = slice(tokens.start, tokens.stop)
    if not is_plain or unembedding.weight.is_meta or "forward" in vars(unembedding):  # offloaded: loaded by its forward
        scores: torch.Tensor = unembedding(x)[..., part]
        return scores
    bias = unembedding.bias
    return torch.nn.functional.linear(x, unembedding.weight[part], None if bias is None else bias[part])


@contextmanager
def _evaluating(hf_model: torch.nn.Module) -> Iterator[None]:
    """Within this block no module is in training mode, in which it would drop values by chance."""
    training = [module for module in hf_model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def entry_device(hf_model: PreTrainedModel, layout: DeviceLayout) -> torch.device:
    """Where a model takes its tokens."""
    return layout.device(_name_of(hf_model, hf_model.get_input_embeddings()))


def _name_of(hf_model: torch.nn.Module, module: torch.nn.Module) -> str:
    return next(str(name) for name, found in hf_model.named_modules() if found is module)


def _bridged(
    hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device, dtype: torch.dtype
) -> TransformerBridge:
    """TransformerLens' bridge, which takes the model over in place."""
    from transformer_lens.model_bridge import TransformerBridge

    architecture = type(hf_model).__name__
    with refusing(lambda words: f"TransformerLens cannot bridge {architecture}: {words}"):
        with no_processors():
            return TransformerBridge.boot_transformers(
                f"local/{architecture}",  # any name will do: everything that it could find is handed over
                hf_model=hf_model,
                tokenizer=_for_bridge(tokenizer),
                device=str(device),
                dtype=dtype,
                trust_remote_code=False,
            )


def _for_bridge(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that the bridge does not try to load again from its name; this project tokenizes by itself."""
    copied = copy.deepcopy(tokenizer)
    copied.init_kwargs.update(name_or_path="", add_bos_token=True)
    return copied
