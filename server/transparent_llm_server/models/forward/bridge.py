"""A model with TransformerLens' bridge as its map: run a batch, keep the minimal set of tensors.

The bridge changes no weight: what is captured is what the Hugging Face model computes. Where the plain model is seen
to show the same, it runs without the bridge in it (`passes.py`).
"""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server.models.families import finish_logits
from transparent_llm_server.models.forward.blocks import Blocks
from transparent_llm_server.models.forward.capture import Capture
from transparent_llm_server.models.forward.edits import EditDetector, count_writes
from transparent_llm_server.models.forward.layer import Layer, LayerPlace
from transparent_llm_server.models.forward.neurons import Materialize, unbridged
from transparent_llm_server.models.forward.norms import Norm
from transparent_llm_server.models.forward.passes import BridgePass, ForwardPass, Rewrites, Section, last_hook
from transparent_llm_server.models.forward.processors import no_processors
from transparent_llm_server.models.forward.regimes import Regimes
from transparent_llm_server.models.forward.structure import Structure, evaluating
from transparent_llm_server.models.forward.tapping import NoTapsError, Tapping
from transparent_llm_server.models.forward.taps import Site
from transparent_llm_server.models.loading.refusal import refusing
from transparent_llm_server.models.placement.layout import DeviceLayout
from transparent_llm_server.models.placement.materialize import MaterializedWeights
from transparent_llm_server.models.placement.quantization import plain_parts
from transparent_llm_server.models.saes.saes import Saes

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_TAKEN_OVER: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


class BridgedModel:
    """Takes `hf_model` over, in place. Forward passes are serialised: hooks are shared state."""

    def __init__(
        self,
        hf_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        layout: DeviceLayout,
        dtype: torch.dtype,
        regimes: Regimes,
        probe: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """`probe`: token ids [batch pos] that may share a pass, and their mask, with which its engine is chosen."""
        if hf_model in _TAKEN_OVER or any(hasattr(module, "original_component") for module in hf_model.modules()):
            raise InvalidRequestError("hf_model is already taken over, or bridged by TransformerLens; load it again")
        _TAKEN_OVER.add(hf_model)
        count_writes(hf_model)
        self.architecture = type(hf_model).__name__
        self.n_params = sum(parameter.numel() for parameter in hf_model.parameters())
        self.layout, self.dtype = layout, dtype
        self.regimes = regimes
        """Which rows may share a forward pass."""

        self.device = entry_device(hf_model, layout)
        """Where the model takes its tokens."""

        self.saes = Saes()
        """Sparse autoencoders of it, by their names."""

        self._last_device = layout.device(_name_of(hf_model, hf_model.get_output_embeddings()))
        plain = Structure.of(hf_model)
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
        self._require_streams(hook_names)
        self._pass = self._engine(plain, *probe)
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
        held = [part for tensor in (*self._hf.parameters(), *self._hf.buffers()) for part in plain_parts(tensor)]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held if not t.is_meta}
        return sum(storages.values())

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, rewrites: Rewrites | None = None) -> Capture:
        """Run one padded batch [batch pos] with its mask and keep what the values need.

        Raises:
            NotSupportedError: something is to be rewritten, which the bridge does not do.
        """
        with self._materialized.lock, evaluating(self._modules):
            generation = self.edits.check()
            self.edits.require_no_hooks()
            shown = self._pass.run(tokens.to(self.device), mask.to(self.device, torch.int64), rewrites)
        of_layers: list[dict[str, torch.Tensor]] = [{} for _ in self.layers]
        for site, tensor in shown.items():
            of_layers[site.layer][site.field] = tensor
        residual_out = of_layers[-1].pop("residual_out")
        layers = tuple(layer.capture(each, tokens.shape) for layer, each in zip(self.layers, of_layers, strict=True))
        self.edits.require_unchanged(generation)  # nobody has changed the model while it ran
        return Capture(tokens, mask, layers, residual_out, generation)

    def section(
        self, tokens: torch.Tensor, mask: torch.Tensor, rewrites: Rewrites, section: Section, generation: int
    ) -> Mapping[Site, torch.Tensor]:
        """Run some blocks for a batch, with the weights of a generation: what is wanted of them.

        Raises:
            NotFoundError: MODEL_CHANGED, as they are not the same any more.
            NotSupportedError: as `forward`.
        """
        with self.plain(generation):
            return self._pass.section(tokens.to(self.device), mask.to(self.device, torch.int64), rewrites, section)

    @contextmanager
    def plain(self, generation: int) -> Iterator[PreTrainedModel]:
        """The model itself, for a pass within this block with the weights of a generation. Raises: as `section`."""
        with self._materialized.lock, evaluating(self._modules):
            self.edits.check()
            self.edits.require_unchanged(generation)
            self.edits.require_no_hooks()
            yield self._hf
            self.edits.require_unchanged(generation)

    @cached_property
    def _modules(self) -> list[torch.nn.Module]:
        """All of them: whether others came is seen elsewhere."""
        return list(self._hf.modules())

    @property
    def blocks(self) -> Blocks | None:
        """Of which lower ones can be left out of a pass, if they can be found so."""
        return self._pass.blocks

    @property
    def engine(self) -> str:
        """What runs it: "taps" on the plain model, or the "bridge"."""
        return self._pass.engine

    @cached_property
    def final_norm(self) -> Norm | None:
        """The norm before the unembedding, if it is known how it computes."""
        return Norm.of(unbridged(self._bridge.ln_final), self.dtype, self._materialized)

    def unembed(
        self, residual: torch.Tensor, *, normalize: bool, tokens: range, scale: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores [n tokens] of residual vectors [n d_model] for consecutive tokens of the vocabulary; with `normalize`,
        the model's own output. With `scale` [n 1], the final norm divides by that."""
        x = residual.to(self._last_device, self.dtype)[None]
        with self._materialized(self._bridge.ln_final, self._bridge.unembed):
            if normalize:
                given, x = x, unbridged(self._bridge.ln_final)(x)
                if scale is not None and self.final_norm is not None:
                    x = self.final_norm.rescaled(x, self.final_norm.scale(given), scale[None].to(x.device))
            scores = _scores(unbridged(self._bridge.unembed), x, tokens)[0]
        return finish_logits(scores, self.text_config) if normalize else scores

    def unembedding_of(self, token: int) -> torch.Tensor:
        """The row of the unembedding for a token [d_model]: the direction that its logit reads."""
        module = unbridged(self._bridge.unembed)
        with self._materialized(module):
            row: torch.Tensor = module.weight[token]
            return row.detach().clone()

    def vocabulary(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Embedding, without what a model multiplies it by, and unembedding [d_vocab d_model], as they are."""
        embedding, unembedding = unbridged(self._hf.get_input_embeddings()), unbridged(self._bridge.unembed)
        return embedding.weight.detach(), unembedding.weight.detach()

    def _engine(self, plain: Structure, tokens: torch.Tensor, mask: torch.Tensor) -> ForwardPass:
        """Taps, if they show of a probe what the bridge shows of it; else the bridge."""
        through_bridge = BridgePass(self._bridge, self._hf, self.layers)
        probe = tokens.to(self.device), mask.to(self.device, torch.int64)
        with self._materialized.lock, torch.no_grad():
            shown = through_bridge.run(*probe)
            for i, layer in enumerate(self.layers):
                if layer.has_heads:
                    layer.n_kv_heads = shown[Site(i, "value")].numel() // (tokens.numel() * layer.heads.d_head)
            bridged = Structure.of(self._hf)
            plain.restore()
            try:
                found = Tapping(self._hf, self.layers, *probe, shown).found()
            except NoTapsError as error:
                bridged.restore()
                log.warning(
                    "%s runs through TransformerLens' bridge, which is slower: its own modules do not show %s",
                    self.architecture,
                    error,
                )
                return through_bridge
        _drop_copies(self._bridge, self._hf)
        return found

    def _require_streams(self, hook_names: Collection[str]) -> None:
        last = last_hook(self.layers)
        missing = [last] if last not in hook_names else []
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


def _drop_copies(bridge: TransformerBridge, hf_model: PreTrainedModel) -> None:
    """Free the weights that the bridge made for itself, parts of fused ones: it does not run any more."""
    own = {_storage(tensor) for tensor in (*hf_model.parameters(), *hf_model.buffers())}
    for module in bridge.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and not tensor.is_meta and _storage(tensor) not in own:
                    held[name] = None


def _storage(tensor: torch.Tensor) -> int:
    part = plain_parts(tensor)[0]
    place: int = part.untyped_storage()._cdata
    return place


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
