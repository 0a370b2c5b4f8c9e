"""What a server says about itself: models, how exact they are, limits, versions."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from transparent_llm.contract import ModelInfo
from transparent_llm.errors import InternalError
from transparent_llm.quoting import quoted
from transparent_llm.table import Table, Tabular


@dataclass(frozen=True)
class ParityCheck:
    """One check that a model passed at load, with what was measured."""

    name: str
    """What was compared, for example `logits_vs_huggingface`."""

    max_abs_error: float
    """Largest absolute difference."""

    tolerance: float
    """A model over it is refused."""

    @property
    def passed(self) -> bool:
        """Whether the error is within its tolerance; a NaN is not."""
        return self.max_abs_error <= self.tolerance

    def exceeds(self, other: ParityCheck) -> bool:
        """Whether this one is nearer to failing, or fails by more; a NaN fails by most."""
        mine, others = self.max_abs_error / self.tolerance, other.max_abs_error / other.tolerance
        return not mine <= others


class ModelState(enum.Enum):
    """Whether a model can be used at once."""

    LOADED = "loaded"
    LOADING = "loading"
    UNLOADED = "unloaded"
    """The first call for it loads it."""

    FAILED = "failed"
    """Loading it failed; after some time a call tries again."""


@dataclass(frozen=True)
class SaeDescription:
    """A sparse autoencoder, or a transcoder, that is loaded with a model."""

    name: str
    """What calls have for it."""

    site: str
    """What it reads: KIND.LAYER or KIND.LAYER.HEAD, for example `residual_out.1`."""

    output_site: str
    """What it writes; a transcoder's differs from what it reads."""

    architecture: str
    """As SAELens has it: `standard`, `topk`, `jumprelu`, `gated`, `transcoder` and so on."""

    d_in: int
    d_sae: int
    """How many features it has."""

    d_out: int
    digest: str
    """SHA-256 (hex) over its settings and weights."""

    weight_bytes: int
    """What its weights take of memory."""


@dataclass(frozen=True)
class ModelDescription(Tabular):
    """Everything that can be known of a model before it runs anything.

    Of one that was never loaded only its names, how it will be loaded, `state` and `detail` are known. One that was
    unloaded keeps what was known of it.
    """

    info: ModelInfo
    digest: str
    """SHA-256 (hex) over configuration, weights and tokenizer."""

    architecture: str = ""
    """The transformers class, for example `GPT2LMHeadModel`."""

    dtype: torch.dtype | None = torch.float32
    """Of weights and values; None if this client does not know it."""

    device: str = "cpu"
    n_ctx: int = 0
    """Longest input in tokens; 0 where it is not known."""

    d_ffn: tuple[int, ...] = ()
    """Neurons of each layer as `neuron_activations` counts them."""

    prepends_bos: bool = False
    """Whether a beginning-of-sequence token is put before every sentence."""

    pad_token_id: int = 0
    parity: tuple[ParityCheck, ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """RPC name -> why this model cannot answer it."""

    conventions: Mapping[str, str] = field(default_factory=dict)
    """How a value is defined where a definition had to be chosen."""

    run_bytes_per_position: int = 0
    """What each position of each row takes of the server's store, attention patterns aside; 0 if not known."""

    run_bytes_per_position_pair: int = 0
    """What each pair of positions of a row takes: the attention patterns."""

    state: ModelState = ModelState.LOADED
    aliases: tuple[str, ...] = ()
    """Further names under which it is served."""

    detail: str = ""
    """In words: what loading does now, why it failed, or where the model would come from. Empty when it is loaded."""

    revision: str = ""
    """The branch, tag or commit of the hub that was asked for. Empty: the newest, or a local folder."""

    quantization: str = ""
    """How the weights were quantized when they were loaded. Empty: not at all."""

    devices: Mapping[str, int] = field(default_factory=dict)
    """Device -> number of layers on it, where the model lies on more than one."""

    weight_bytes: int = 0
    """What its weights take of memory; before it is loaded, what its files say. 0 if not known."""

    on_demand: bool = False
    """Loaded when it is first asked for, and unloaded when its memory is needed for others."""

    engine: str = ""
    """What runs it: "taps", the plain Hugging Face model with hooks on its own modules, or "bridge", TransformerLens'
    modules in their place. Empty: not known."""

    saes: tuple[SaeDescription, ...] = ()
    """The sparse autoencoders that are loaded with it; their bytes are part of `weight_bytes`."""

    def run_bytes(self, batch: int, n_pos: int) -> int:
        """What a run of `batch` rows, padded to `n_pos` positions, takes of the server's store."""
        return batch * n_pos * (self.run_bytes_per_position + n_pos * self.run_bytes_per_position_pair)

    def table(self) -> Table:
        """What is known of it, a line for each fact; `print(description)` and notebooks show it."""
        info, d_ffn = self.info, "/".join(str(size) for size in sorted(set(self.d_ffn)))
        facts: dict[str, object] = {
            "state": f"{self.state.value} {self.detail}".strip(),
            "aliases": ", ".join(self.aliases),
            "architecture": self.architecture,
            "parameters": f"{info.n_params_estimate:,}" if info.n_params_estimate else "",
            "layers, heads": f"{info.n_layers}, {info.n_heads}" if info.n_layers else "",
            "d_model, d_ffn, d_vocab": f"{info.d_model}, {d_ffn}, {info.d_vocab}" if info.d_model else "",
            "context": f"{self.n_ctx} tokens" if self.n_ctx else "",
            "dtype, device": f"{str(self.dtype).removeprefix('torch.')}, {self.device}" if self.digest else "",
            "engine": self.engine,
            "devices": ", ".join(f"{n} layers on {device}" for device, n in sorted(self.devices.items())),
            "quantization": self.quantization,
            "revision": self.revision,
            "beginning token": ("put before text" if self.prepends_bos else "none") if self.digest else "",
            "digest": self.digest,
            **{f"SAE {sae.name}": f"{sae.architecture} of {sae.site}, {sae.d_sae} features" for sae in self.saes},
            **{f"check {c.name}": f"{c.max_abs_error:.2g}, allowed {c.tolerance:.2g}" for c in self.parity},
            **{f"without {method}": why for method, why in self.unsupported.items()},
            **{f"convention {name}": words for name, words in self.conventions.items()},
        }
        return Table.of(f"model {info.name}", (), [fact for fact in facts.items() if fact[1]])


@dataclass(frozen=True)
class Limits:
    """What a server allows."""

    max_tokens_per_run: int
    max_sentences_per_run: int
    run_store_bytes: int
    run_ttl_seconds: float
    max_chunk_bytes: int
    queue_length: int
    max_read_bytes: int = 0
    """One answer: a tensor, or all of a `fetch`. 0: not known."""

    run_bytes_per_owner: int = 0
    max_streams: int = 0
    """Calls under way at the same time."""

    max_streams_per_owner: int = 0
    """Of these, the most for one owner, where callers say who they are."""

    model_bytes: int = 0
    """Weights of all loaded models together. 0: no limit."""

    max_text_bytes: int = 0
    """All sentences of one run together. 0: not known."""

    max_items: int = 0
    """Reads of one message, which a client keeps to by asking several times. 0: not limited."""

    max_read_work: int = 0
    """Multiply-adds of the analyses of one answer, all items of a `fetch` together. 0: not known."""

    vector_store_bytes: int = 0
    """All kept vectors together. 0: none are kept."""

    vector_bytes_per_owner: int = 0
    vectors_per_owner: int = 0
    """One more takes the place of the least recently used."""

    max_vector_elements: int = 0
    """Of one kept vector."""
    max_sweep_cells: int = 0
    """Of one sweep, which a client keeps to by asking several times. 0: the server does none."""

    max_sweep_positions: int = 0
    """Positions that one sweep may compute: cells times rows times positions of the run."""


MOST_SENTENCES = 1000
"""Of a data set."""


@dataclass(frozen=True)
class DatasetDescription:
    """Sentences that the operator of a server offers: see `RemoteTransparentLlm.dataset`."""

    name: str
    n_sentences: int


@dataclass(frozen=True)
class ServerInfo(Tabular):
    """The answer of `RemoteTransparentLlm.server_info()`."""

    api_version: str
    server_version: str
    models: tuple[ModelDescription, ...]
    limits: Limits
    features: tuple[str, ...]
    versions: Mapping[str, str]
    stored_runs: int
    stored_run_bytes: int
    datasets: tuple[DatasetDescription, ...] = ()

    def model(self, name: str) -> ModelDescription:
        """The model of this name.

        Raises:
            InternalError: the server, which answered calls for it, does not describe it.
        """
        found = next((model for model in self.models if model.info.name == name), None)
        if found is None:
            raise InternalError(f"the server answers calls for {quoted(name)} and does not describe it")
        return found

    def table(self) -> Table:
        """Its models, a line for each; `print(info)` and notebooks show it."""
        rows = [
            (m.info.name, m.state.value, m.architecture, _size(m.info.n_params_estimate), m.info.n_layers, m.device)
            for m in self.models
        ]
        used = f"{self.stored_runs} runs stored, {self.stored_run_bytes:,} of {self.limits.run_store_bytes:,} bytes"
        title = f"server {self.server_version}, API {self.api_version}; {used}"
        return Table.of(title, ("model", "state", "architecture", "parameters", "layers", "device"), rows)


def _size(count: int) -> str:
    return f"{count:,}" if count else ""


@dataclass(frozen=True)
class StoredRun:
    """A run that a server keeps, as its administrators see it."""

    run_id: str
    owner: str
    """Empty where nobody has to say who they are."""

    model: str
    nbytes: int
    age_s: float
    """Since it was computed."""

    idle_s: float
    """Since it was last read or asked for."""


@dataclass(frozen=True)
class StoredRuns:
    """Some of the runs that a server keeps, those that were read last first, and how many there are in all."""

    runs: tuple[StoredRun, ...]
    total: int
    total_bytes: int


@dataclass(frozen=True)
class OwnerUsage:
    """What an owner has of a server."""

    owner: str
    """Empty where nobody has to say who they are."""

    waiting_runs: int
    stored_runs: int
    stored_run_bytes: int
    usage: Mapping[str, tuple[int, int | None]]
    """`positions_per_minute` and so on: how much was taken, and how much may be; None: there is no limit."""
