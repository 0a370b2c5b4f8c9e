"""`TransformerLensTransparentLlm`: the contract in this process, no server needed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int

from transparent_llm.analysis.methods import Analyses
from transparent_llm.contract import ModelInfo
from transparent_llm.description import ModelDescription, ParityCheck
from transparent_llm.interventions.own import OwnEdits
from transparent_llm.run_input import checked_bos, ids_of, one_text
from transparent_llm.runtime.current import Current, OwnSelection
from transparent_llm.runtime.numerics import standard_numerics
from transparent_llm.runtime.residual import require_residual
from transparent_llm.runtime.short_tracebacks import short_tracebacks
from transparent_llm.selection import Padding, Selection, checked_padding, require_dtype
from transparent_llm_server.models import results
from transparent_llm_server.models.derived.model import ModelValues
from transparent_llm_server.models.derived.projecting import Projecting
from transparent_llm_server.models.derived.readout import LastStep
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.derived.unsupported import unsupported_values
from transparent_llm_server.models.featuring import Featuring, SaePlaces, load_saes
from transparent_llm_server.models.forward.batch import Batch, run_together
from transparent_llm_server.models.forward.bridge import BridgedModel, entry_device
from transparent_llm_server.models.forward.capture import Capture
from transparent_llm_server.models.forward.tokenization import Tokenization
from transparent_llm_server.models.generating.choosing import end_tokens
from transparent_llm_server.models.loading.digest import hashing
from transparent_llm_server.models.loading.huggingface import context_length, display_name, load
from transparent_llm_server.models.loading.progress import step
from transparent_llm_server.models.loading.vocabulary import require_same_vocabulary
from transparent_llm_server.models.parity import check_parity, reference
from transparent_llm_server.models.placement.placement import Placement
from transparent_llm_server.models.running import Running
from transparent_llm_server.models.values.value import as_slice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_Self = TypeVar("_Self", bound="TransformerLensTransparentLlm")

CONVENTIONS = {
    "residual_after_attn": "residual_in plus the attention output, also where both branches read the same input",
    "neuron_index": "dense: row of W_out; mixture of experts: expert * d_expert + j, shared expert last",
    "neuron_activation": "right after the activation function; gated: act(gate) * up; experts: times router weight",
    "post_norm": "contributions include the norm after the branch with the scale it had in this run",
    "bias": "output biases belong to no head and no neuron",
    "padding": "right",
}
EDITED = "edited since the model was loaded; what its checks measured was measured before"


@short_tracebacks
class TransformerLensTransparentLlm(Running, Featuring, Projecting, Analyses):
    """A model in this process, run through TransformerLens without any weight processing.

    An object has one current run: `copy()` gives another thread its own. It may be run in one thread and read in
    others; a thread (or a task of asyncio) whose run another one has replaced is told so by `NotRunError`.

    At load the model is checked: all hooks fire, its values equal those of plain Hugging Face (eager
    attention), its parts sum up. One that fails is refused.

    Args:
        model_name: A local folder, a hub name, a GGUF file, or one in a folder or of the hub (NAME:FILE.gguf). Weights
            are read from safetensors or GGUF; the latter are turned into floating numbers of `dtype`.
        hf_model: A loaded Hugging Face causal language model to use instead. It is taken over in place: hooked, moved,
            cast, frozen and put into eval mode; whoever has it may edit its weights, which is noticed.
        tokenizer: Its tokenizer, if not the one beside the model.
        device: "cpu", "cuda", "cuda:1", "gpu" (the same as "cuda") or "auto" (a GPU if there is one).
        dtype: Of weights and values.
        revision: A branch, tag or commit of the hub, for configuration, weights and tokenizer. None: the newest.
        device_map: Spread the model over devices: "auto", "balanced", "balanced_low_0", "sequential" or a JSON file
            {module: device}; `device` then does not count.
        max_memory: What each device may hold of it, for example "0=20GiB,cpu=60GiB".
        quantization: Quantize weights at load: "quanto-int8" or "torchao-int8", which need packages of their own.
        offload_dir: Where weights that lie on disk are kept, as far as the model's own files cannot be used.
        adapter: A folder or hub name of a LoRA adapter (PEFT) that is merged into the model.
        padding: "nan": floating values are NaN at padded positions. "keep": they are what the model computed there.
        saes: Sparse autoencoders as SAELens saves them, by names: {"res1": ("FOLDER", "residual_out.1")}; of a
            transcoder also the site that it writes.

    Raises:
        InvalidRequestError: no such model, tokenizer or device.
        ModelRefusedError: the model would give wrong values, and the message says which and by how much; or its files
            are damaged, incomplete, or want code to be run.
    """

    @standard_numerics()
    def __init__(
        self,
        model_name: str,
        hf_model: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        device_map: str | None = None,
        max_memory: str | None = None,
        offload_dir: str | Path | None = None,
        quantization: str | None = None,
        adapter: str | None = None,
        padding: Padding = "keep",
        saes: SaePlaces | None = None,
    ) -> None:
        require_dtype(type(self).__name__, dtype)
        self._own_selection = OwnSelection(Selection(padding=checked_padding(padding)))
        folder = None if offload_dir is None else Path(offload_dir)
        placement = Placement(device, dtype, device_map, max_memory, folder, quantization)
        is_handed_over = hf_model is not None
        loaded = load(model_name, hf_model, tokenizer, placement, revision, adapter)
        hf_model, tokenizer = loaded.model, loaded.tokenizer
        n_ctx = context_length(hf_model.config.get_text_config(), fallback=2048)
        with hashing(hf_model, hf_model.config, tokenizer, loaded.quantization) as digest:
            step("computing the reference, hashing weights")
            layout = placement.layout(hf_model)
            d_vocab = hf_model.get_output_embeddings().weight.shape[0]
            require_same_vocabulary(tokenizer, d_vocab)
            probe = reference(hf_model, d_vocab, n_ctx, entry_device(hf_model, layout))
            step("bridging")
            batch = Batch(probe.tokens, probe.mask)
            _, part = batch.split(probe.regimes)[0]
            self._model = BridgedModel(hf_model, tokenizer, layout, dtype, probe.regimes, (part.tokens, part.mask))
        self._tokenization = Tokenization(
            tokenizer, wants_bos=self._model.wants_bos, n_ctx=n_ctx, d_vocab=self._model.d_vocab
        )
        step("checking")
        described = display_name(model_name), digest.result(), n_ctx
        (capture,) = run_together(self._model, [batch])
        parity = check_parity(self._model, RunValues(self._model, capture), probe)
        load_saes(self._model, RunValues(self._model, capture), saes or {})
        if is_handed_over:  # who loads it from files has it alone
            self._model.watch()
        self._last_step, self._end_tokens = LastStep(self._model), end_tokens(hf_model, tokenizer)
        self._revision, self._quantization = revision or "", loaded.quantization or ""
        self._adapter = {} if loaded.adapter is None else {"adapter": str(loaded.adapter)}
        self._description = self._describe(*described, parity, capture)
        self._current_run: Current[RunValues] = Current()
        self._own_edits, self._kept = OwnEdits(), {}

    def __copy__(self: _Self) -> _Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._current_run, twin._own_selection = self._current_run.copy(), self._own_selection.copy()
        twin._own_edits = OwnEdits()
        return twin

    def __repr__(self) -> str:
        info = self.model_info()
        latest = self._current_run.peek()
        run = "no run yet" if latest is None else f"run of shape {latest.tokens().shape}"
        shape = f"{info.n_layers} layers, {info.n_heads} heads, d_model {info.d_model}"
        return f"<TransformerLensTransparentLlm {info.name!r} on {self._model.device}: {shape}; {run}>"

    def describe(self) -> ModelDescription:
        """Everything known of the model: digest, limits, conventions, and what its checks measured.

        Weights that were edited since the load have another digest, new for every edit.

        Raises:
            InvalidRequestError: the model was changed in a way that cannot be followed, such as a cast.
        """
        self._model.edits.check()
        digest = self._model.edits.digest(self._description.digest)
        if digest != self._description.digest:
            edited = {**self._description.conventions, "weights": EDITED}
            self._description = dataclasses.replace(self._description, digest=digest, conventions=edited)
        return self._description

    def model_info(self) -> ModelInfo:
        return self._description.info

    @contextmanager
    def reading(self: _Self, *, padding: Padding) -> Iterator[_Self]:
        """Within a `with` block: another choice for `padding`, for reads of the thread that opens it."""
        with self._own_selection.within(lambda before: before.narrowed(None, {}, frozenset(), padding)):
            yield self

    def to_tokens(self, text: str, *, add_bos: bool | None = None) -> Int[torch.Tensor, "pos"]:
        return torch.tensor(self.encode([one_text(text)], checked_bos(add_bos))[0], dtype=torch.int64)

    def values(self) -> RunValues:
        """The current run's values without copies: views that must not be written to."""
        return self._current_run.get()

    @property
    def tokenizes_concurrently(self) -> bool:
        """Whether threads need not take turns at its tokenizer."""
        return self._tokenization.is_concurrent

    @property
    def bridged(self) -> BridgedModel:
        """The model through its bridge, which all copies of this object share."""
        return self._model

    def batch_size(self) -> int:
        return self.values().batch_size()

    def tokens(self) -> Int[torch.Tensor, "batch pos"]:
        return results.of_model(self.values(), "tokens").to(self._model.device)

    def mask(self) -> Bool[torch.Tensor, "batch pos"]:
        return results.of_model(self.values(), "mask").to(self._model.device)

    def tokens_to_strings(self, tokens: Int[torch.Tensor, "pos"]) -> list[str]:
        return self.strings(ids_of(tokens))

    def strings(self, ids: Sequence[int]) -> list[str]:
        """As `tokens_to_strings`, of plain numbers."""
        return self._tokenization.strings(ids)

    def logits(self) -> Float[torch.Tensor, "batch pos d_vocab"]:
        return self._read("logits")

    def unembed(self, t: Float[torch.Tensor, "d_model"], normalize: bool) -> Float[torch.Tensor, "vocab"]:
        require_residual(t, normalize)
        return self._read_model("unembed", t, normalize)

    def residual_in(self, layer: int) -> Float[torch.Tensor, "batch pos d_model"]:
        return self._read("residual_in", layer)

    def residual_after_attn(self, layer: int) -> Float[torch.Tensor, "batch pos d_model"]:
        return self._read("residual_after_attn", layer)

    def residual_out(self, layer: int) -> Float[torch.Tensor, "batch pos d_model"]:
        return self._read("residual_out", layer)

    def ffn_out(self, layer: int) -> Float[torch.Tensor, "batch pos d_model"]:
        return self._read("ffn_out", layer)

    def decomposed_ffn_out(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, "hidden d_model"]:
        return self._read("decomposed_ffn_out", batch_i, layer, pos)

    def neuron_activations(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, "d_ffn"]:
        return self._read("neuron_activations", batch_i, layer, pos)

    def neuron_output(self, layer: int, neuron: int) -> Float[torch.Tensor, "d_model"]:
        return self._read_model("neuron_output", layer, neuron)

    def attention_matrix(self, batch_i: int, layer: int, head: int) -> Float[torch.Tensor, "query_pos key_pos"]:
        return self._read("attention_matrix", batch_i, layer, head)

    def attention_output(
        self, batch_i: int, layer: int, pos: int, head: int | None = None
    ) -> Float[torch.Tensor, "d_model"]:
        return self._read("attention_output", batch_i, layer, pos, head)

    def decomposed_attn(self, batch_i: int, layer: int) -> Float[torch.Tensor, "target source head d_model"]:
        return self._read("decomposed_attn", batch_i, layer)

    @standard_numerics()
    def read_circuits(self, name: str, *arguments: int | str, axes: Mapping[str, slice]) -> torch.Tensor | Any:
        """See `analysis.circuits.ReadsCircuits`."""
        found = getattr(ModelValues(self._model), name)(*arguments)
        if isinstance(found, tuple):
            return tuple(part.own_tensor() for part in found)
        dims = ("layer", "head", "later_layer", "later_head")[: len(found.shape)]
        cut = [as_slice(range(n)[axes.get(axis, slice(None))]) for axis, n in zip(dims, found.shape, strict=True)]
        return found.select(cut).own_tensor()

    def _read(self, name: str, *indices: int | None) -> torch.Tensor | Any:
        """A value of the current run, or its parts, in memory that belongs to the caller."""
        return results.of_run(self.values(), name, *indices, padding=self._own_selection.get().padding)

    def _read_model(self, name: str, *arguments: torch.Tensor | int) -> torch.Tensor | Any:
        """A value that needs no run, in memory that belongs to the caller."""
        return results.of_model(ModelValues(self._model), name, *arguments)

    def _describe(
        self, name: str, digest: str, n_ctx: int, parity: tuple[ParityCheck, ...], run: Capture
    ) -> ModelDescription:
        model = self._model
        info = ModelInfo(name, model.n_params, len(model.layers), model.n_heads, model.d_model, model.d_vocab)
        return ModelDescription(
            info=info,
            digest=digest,
            architecture=model.architecture,
            dtype=model.dtype,
            device=str(model.layout),
            n_ctx=n_ctx,
            d_ffn=tuple(0 if layer.neurons is None else layer.neurons.count for layer in model.layers),
            prepends_bos=self._tokenization.prepends_bos,
            pad_token_id=self._tokenization.pad_token_id,
            parity=parity,
            unsupported=unsupported_values(model),
            conventions={**CONVENTIONS, "rows": str(model.regimes), **self._adapter},
            run_bytes_per_position=run.bytes_per_position,
            run_bytes_per_position_pair=run.bytes_per_position_pair,
            revision=self._revision,
            quantization=self._quantization,
            devices={} if model.layout.is_single else dict(Counter(model.places)),
            weight_bytes=model.weight_bytes + model.saes.nbytes,
            engine=model.engine,
            saes=tuple(sae.describe() for sae in model.saes),
        )
