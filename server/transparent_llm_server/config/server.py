"""Everything about a server that can be set, with its unit in its name and its default once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.network.target import DEFAULT_TARGET
from transparent_llm_server.config.model import DEMO
from transparent_llm_server.config.model import ModelConfig as ModelConfig
from transparent_llm_server.config.parsing import require_known, typed
from transparent_llm_server.config.parsing import settings_of as settings_of
from transparent_llm_server.config.sae import require_models
from transparent_llm_server.config.setting import setting

MIB = 2**20
DEFAULT_SHARED_POSITIONS = 8192
"""What an unset `shared_positions` is on a GPU."""


@dataclass(frozen=True)
class ServerConfig:
    """A server. The defaults suit one machine and one team."""

    listen: str = setting(DEFAULT_TARGET, metavar="ADDRESS")
    """HOST:PORT, where port 0 takes a free one, or unix:PATH. Of a name with several addresses all must be free."""

    probe_listen: str | None = setting(None, metavar="HOST:PORT")
    """Where the health service, and nothing else, is answered too, without TLS or tokens: probes of a cluster have
    neither. Unset: nowhere."""

    page: str | None = setting(None, metavar="HOST:PORT")
    """Where browsers get the page, and make its calls as gRPC-Web, under the same rules as all others. Unset:
    nowhere."""

    page_hosts: tuple[str, ...] = setting((), flag="--page-host", metavar="NAME")
    """Names under which browsers may ask for the page, beside addresses, localhost and the name in `page`; the flag is
    repeated for several."""

    models: tuple[ModelConfig, ...] = setting((), flag="--model", metavar="[ALIAS=]NAME_OR_DIR")
    """Models to serve, by hub name, local folder or GGUF file, or `demo` for the embedded one; the flag is repeated for
    several. Unset: the embedded one."""

    adapter: str | None = setting(None, metavar="NAME_OR_DIR")
    """A LoRA adapter (PEFT) that is merged into the model, which must be the only one. Of several models, each has its
    own in its table. Unset: none."""

    saes: tuple[str, ...] = setting((), flag="--sae", metavar="[MODEL/]NAME=DIR@SITE")
    """Sparse autoencoders to load: folders as SAELens saves them, and the sites that they are of, as in
    res1=./sae@residual_out.1; of a transcoder both, as in t=./t@residual_after_attn.1:ffn_out.1. The flag is repeated
    for several. Unset: none."""

    datasets: tuple[str, ...] = setting((), flag="--dataset", metavar="NAME=FILE")
    """Sentences offered to whoever may call: text files (UTF-8) with one a line. The flag is repeated for several."""

    fetch_only: bool = False
    """Fetch what the hub has of the models into its cache (HF_HOME), and end, with 0 if all of it is there."""

    device: str = "auto"
    """The device of the models: cpu, cuda, cuda:INDEX, gpu (the same as cuda) or auto (a GPU if there is one)."""

    dtype: torch.dtype = torch.float32
    """The type of weights and values: float32, bfloat16 or float16."""

    device_map: str | None = setting(None, metavar="MAP")
    """Spread models over devices: auto, balanced, balanced_low_0, sequential or a JSON file {module: device}. Models
    that have a device of their own are left out."""

    max_memory: str | None = setting(None, metavar="SIZES")
    """What each device may hold of a model that a device map spreads: 0=20GiB,cpu=60GiB."""

    offload_dir: Path | None = setting(None, metavar="FOLDER")
    """Where weights that a device map puts on disk are kept, as far as the model's own files cannot be used."""

    quantization: str | None = setting(None, metavar="WAY")
    """Quantize weights when a model is loaded: quanto-int8 or torchao-int8, if installed."""

    model_bytes: int | None = None
    """Weights of all loaded models together. Over it, those that are loaded on demand and that nobody uses are
    unloaded, the least recently used first. Unset: no limit."""

    model_retry_s: float = 60.0
    """How long to wait before loading a model again after that has failed."""

    max_streams: int = 160
    """Calls under way at the same time; one more is told to retry later. Each has a thread."""

    spare_threads: int = 16
    """Threads beside those of `max_streams`, which tell calls over that limit at once to retry later."""

    max_streams_per_owner: int = 64
    """Calls under way at the same time for one owner, where callers say who they are."""

    queue_length: int = 32
    """Runs that wait for the model; one more is told to retry later. Fewer than `max_streams`, so that reads go on."""

    shared_positions: int | None = None
    """Positions, padding included, of one forward pass that runs of several clients share; values then differ by
    rounding from those of a run alone. 0: each run has its own pass. Unset: 8192 on a GPU, 0 on the CPU."""

    share_window_s: float = 0.002
    """How long the model waits for more runs to share a forward pass with."""

    sweep_s: float = 10.0
    """How often runs that are older than `run_ttl_s` are looked for."""

    busy_retry_s: float = 1.0
    """How long a call that was refused for want of room is told to wait."""

    run_store_bytes: int = 4 * 2**30
    """All stored runs together, on the device of their model. Over it the least recently used go."""

    run_bytes_per_owner: int | None = None
    """Stored runs of one owner together. Unset: as many as `run_store_bytes`."""

    owner_positions_per_minute: int | None = None
    """Positions (rows times tokens of the longest) that one owner may have computed within a minute; a run beyond that
    is told when to come again. This and the next three need tokens or certificates, which tell who the owner is. Unset:
    no limit."""

    owner_positions_per_hour: int | None = None
    """The same within an hour."""

    owner_bytes_per_minute: int | None = None
    """Bytes of tensors that one owner may be sent within a minute; a read beyond that is told when to come again."""

    owner_bytes_per_hour: int | None = None
    """The same within an hour."""

    run_ttl_s: float = 3600.0
    """A run that nobody has read, or a kept vector that no edit has used, for this long is dropped."""

    vector_store_bytes: int = 64 * MIB
    """All vectors that are kept for edits, in the memory of the process. Over it the least recently used go."""

    vector_bytes_per_owner: int = 16 * MIB
    """Kept vectors of one owner together."""

    vectors_per_owner: int = 1024
    """Kept vectors of one owner; one more takes the place of the least recently used."""

    max_tokens_per_run: int = 65_536
    """Tokens of one run, padding included."""

    max_sentences_per_run: int = 1024
    """Sentences of one run, which are the rows of its batch."""

    max_text_bytes: int = MIB
    """All sentences of one run together, in UTF-8."""

    max_read_bytes: int = 16 * 2**30
    """One answer: a tensor, or all of a Fetch."""

    max_read_work: int = 50 * 10**12
    """Multiply-adds of the analyses of one answer. For 1000 tokens of a model of 7 billion parameters the contribution
    graph is 5e12, and a logit lens of all layers with the divergence from the output 9 to 35e12, by the vocabulary."""

    max_sweep_positions: int = 4 * 2**20
    """Positions that one sweep may compute: cells times rows times positions of the run."""

    max_gradient_bytes: int = 4 * 2**30
    """Memory that the graph and the answer of gradients may take, estimated of layers, positions and widths."""

    generation_bytes: int = 2**30
    """Keys and values that all generations under way remember of their rows, on the device of their model; one that has
    no room beside the others is told to retry later."""

    chunk_bytes: int = MIB
    """Data in one message of a stream, unless the client asks for another size."""

    max_chunk_bytes: int = 4 * MIB
    """Data in one message of a stream that a client can ask for at most."""

    shared_memory: bool = True
    """Send large tensors through shared memory to clients of the same host and user that offer it."""

    max_request_bytes: int = 4 * MIB
    """One message from a client; a larger one is refused."""

    drain_announce_s: float = 0.0
    """How long after SIGTERM health says NOT_SERVING while new calls are still answered."""

    drain_s: float = 30.0
    """How long calls that are under way may go on once the server, which is to end, takes no new ones."""

    stall_s: float = 60.0
    """A stream that its client has not read for this long is cancelled, which frees its thread. 0: never."""

    request_arrival_s: float = 20.0
    """How long the request of a call may take to come, whole; then the call is cancelled. Where its place is needed by
    another call, it is cancelled at once. 0: for ever."""

    max_unread_bytes: int = 64 * MIB
    """Answers of calls without streaming that their clients do not read, all together; over it the oldest are
    dropped."""

    canary_s: float = 5.0
    """How often the server calls itself, as a client would. If that is not answered twice in a row, it says that it
    does not serve; after six times the process ends with the exit code 73. 0: never."""

    hang_s: float = 0.0
    """A piece of work on the model thread that takes longer ends the process with the exit code 72, so that it is
    restarted. 0: never."""

    shortest_ping_s: float = 5.0
    """Clients that ping more often than this are disconnected."""

    tokens_file: Path | None = setting(None, flag="--tokens")
    """Calls must bring a bearer token of this file: lines OWNER SHA256HEX, as `transparent-llm token` prints them.
    Unset: no token is asked for."""

    admin_tokens_file: Path | None = setting(None, flag="--admin-tokens")
    """Who brings a token of this file, of the same form, may list runs and owners and have the server drain
    (`transparent-llm admin`), and nothing else. Unset: nobody may."""

    revoked_file: Path | None = setting(None, flag="--revoked")
    """Refuse everyone whom this file names: lines sha256:FINGERPRINT, serial:NUMBER, or owners as logged.
    Unset: nobody is named."""

    tls_cert: Path | None = None
    """The server's certificate with its chain (PEM). Unset: no TLS."""

    tls_key: Path | None = None
    """The private key of the server's certificate (PEM, without password)."""

    tls_client_ca: Path | None = None
    """Clients must present a certificate from the authorities in this file (PEM). Unset: none is asked for."""

    insecure: bool = False
    """Listen beyond this host even without authentication, or with tokens but without TLS."""

    log_prompts: bool = False
    """Write sentences, and the words of incidents, into the log; otherwise they are never there."""

    max_metadata_bytes: int = 16 * 2**10
    """Headers of a call; one with more is refused."""

    max_streams_per_connection: int = 128
    """Calls under way at the same time on one connection; its client keeps more of them back."""

    connection_age_s: float = 3600.0
    """After this time, give or take a tenth, a connection takes no new calls and clients open another, which proves
    again who they are. 0: never."""

    connection_grace_s: float = 300.0
    """How long calls may go on on a connection older than `connection_age_s`. A transfer that takes longer is taken up
    again where it was."""

    connection_idle_s: float = 1800.0
    """A connection without calls is closed after this time. 0: never."""

    handshake_s: float = 20.0
    """How long a client that has connected may take to begin to speak."""

    metrics_listen: str | None = setting(None, metavar="HOST:PORT")
    """Where Prometheus reads metrics by HTTP; port 0 takes a free one. Unset: no metrics."""

    otlp_endpoint: str | None = setting(None, metavar="URL")
    """Where spans are sent to by OTLP/gRPC: http://HOST:PORT, or https:// for TLS. Unset: no traces."""

    access_log: Literal["text", "json"] = "text"
    """The format of the whole log, which has a line for each call: text, or json for one JSON object per line."""

    audit_log: Path | None = None
    """A file that lines of JSON are appended to: who called what, who was refused and why, which files of tokens and
    certificates were read again. Unset: there is none."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise InvalidRequestError(f"{name} is {value}: it must be a number, 0 or more")
        if self.adapter is not None and len(self.models) > 1:
            raise InvalidRequestError(
                f"adapter belongs to one model, and there are {len(self.models)}: give each its own, "
                'adapter = "NAME_OR_DIR" in its table [[models]] of a configuration file'
            )
        served = self.models or (ModelConfig.parse(DEMO),)
        require_models(self.saes, [name for model in served for name in (model.alias, *model.aliases)], len(served))

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> ServerConfig:
        """From names and values as flags and configuration files have them.

        Raises:
            InvalidRequestError: an unknown name, or a value of another type.
        """
        kinds = require_known(settings, cls)
        values: dict[str, Any] = {
            name: _models(value) if name == "models" else typed(name, value, kinds[name])
            for name, value in settings.items()
        }
        return cls(**values)

    @property
    def is_unix(self) -> bool:
        """Whether it listens on a socket file."""
        return self.listen.startswith("unix:")

    @property
    def has_authentication(self) -> bool:
        """Whether callers must say who they are."""
        return self.tokens_file is not None or self.tls_client_ca is not None


def _models(value: object) -> tuple[ModelConfig, ...]:
    """From a list of `NAME_OR_DIR` or `ALIAS=NAME_OR_DIR`, or of tables."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str | dict) for item in value):
        wanted = 'a list like ["NAME_OR_DIR", "ALIAS=NAME_OR_DIR"], or tables [[models]]'
        raise InvalidRequestError(f"models is {value!r}: it must be {wanted}")
    return tuple(
        ModelConfig.parse(item) if isinstance(item, str) else ModelConfig.of(item, f"models[{index}]")
        for index, item in enumerate(value)
    )
