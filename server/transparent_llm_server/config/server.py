"""Everything about a server that can be set, with its unit in its name and its default once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config.model import ModelConfig as ModelConfig
from transparent_llm_server.config.parsing import DTYPES as DTYPES
from transparent_llm_server.config.parsing import require_known, typed
from transparent_llm_server.config.parsing import settings_of as settings_of

MIB = 2**20
DEFAULT_SHARED_POSITIONS = 8192
"""On a GPU."""

ACCESS_LOGS = ("text", "json")


@dataclass(frozen=True)
class ServerConfig:
    """A server. The defaults suit one machine and one team."""

    listen: str = "127.0.0.1:50051"
    """HOST:PORT, where port 0 takes a free one, or unix:PATH. Of a name with several addresses all must be free."""

    probe_listen: str | None = None
    """HOST:PORT where the health service, and nothing else, is answered without TLS or tokens: probes of a cluster
    have neither. None: nowhere."""

    models: tuple[ModelConfig, ...] = ()
    """None: the embedded demo model."""

    device: str = "auto"
    """cpu, cuda, cuda:INDEX, gpu (the same as cuda) or auto (a GPU if there is one)."""

    dtype: torch.dtype = torch.float32
    """Of weights and values: float32, bfloat16 or float16."""

    device_map: str | None = None
    """Spread models over devices: auto, balanced, balanced_low_0, sequential or a JSON file {module: device}. Models
    that have a device of their own are left out."""

    max_memory: str | None = None
    """What each device may hold of a model that is spread: 0=20GiB,cpu=60GiB."""

    offload_dir: Path | None = None
    """Where weights that such a map puts on disk are kept, as far as the model's own files cannot be used."""

    quantization: str | None = None
    """Quantize weights when a model is loaded: quanto-int8 or torchao-int8."""

    model_bytes: int | None = None
    """Weights of all loaded models together. Over it, those that are loaded on demand and that nobody uses are
    unloaded, the least recently used first. None: no limit."""

    model_retry_s: float = 60.0
    """How long to wait before loading a model again after that has failed."""

    max_streams: int = 160
    """Calls under way at the same time; one more is told to retry later. Each has a thread."""

    spare_threads: int = 16
    """To refuse further calls at once."""

    max_streams_per_owner: int = 64
    """Of these, the most for one owner, where callers say who they are."""

    queue_length: int = 32
    """Runs that wait for the model; one more is told to retry later. Fewer than `max_streams`, so that reads go on."""

    shared_positions: int | None = None
    """Positions, padding included, of one forward pass that runs of several clients share. 0: each has its own. None:
    8192 on a GPU, 0 on the CPU."""

    share_window_s: float = 0.002
    """How long the model waits for more runs to share a forward pass with."""

    sweep_s: float = 10.0
    """How often runs past their time are looked for."""

    busy_retry_s: float = 1.0
    """How long a refused call is told to wait."""

    run_store_bytes: int = 4 * 2**30
    """All stored runs together, on the device of their model. Over it the least recently used go."""

    run_bytes_per_owner: int | None = None
    """Of all that is stored, the most for one owner. None: all of it."""

    run_ttl_s: float = 3600.0
    """A run that nobody has read for this long is dropped."""

    max_tokens_per_run: int = 65_536
    """Padding included."""

    max_sentences_per_run: int = 1024
    """Rows of one batch."""

    max_text_bytes: int = MIB
    """All sentences of one run together, in UTF-8."""

    max_read_bytes: int = 16 * 2**30
    """One answer: a tensor, or all of a Fetch."""

    chunk_bytes: int = MIB
    """Data in one message of a stream."""

    max_chunk_bytes: int = 4 * MIB
    """The most that a client can request."""

    shared_memory: bool = True
    """Send large tensors through shared memory to clients of the same host and user that offer it."""

    max_request_bytes: int = 4 * MIB
    """One message from a client."""

    drain_announce_s: float = 0.0
    """How long after SIGTERM health says NOT_SERVING while new calls are still answered."""

    drain_s: float = 30.0
    """How long calls may go on after that."""

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

    tokens_file: Path | None = None
    """Owners and the SHA-256 of their tokens; see `tokens`. None: no token is asked for."""

    revoked_file: Path | None = None
    """Certificates and owners that are no longer admitted; see `revoked`. None: nobody."""

    tls_cert: Path | None = None
    """The server's certificate with its chain (PEM). None: no TLS."""

    tls_key: Path | None = None
    """Its private key (PEM, without password)."""

    tls_client_ca: Path | None = None
    """Clients must present a certificate from these authorities (PEM)."""

    insecure: bool = False
    """Listen beyond this host even without authentication or encryption."""

    log_prompts: bool = False
    """Write sentences, and the words of incidents, into the log."""

    max_metadata_bytes: int = 16 * 2**10
    """Headers of a call; one with more is refused."""

    max_streams_per_connection: int = 128
    """Calls under way on one connection; a client holds further ones back."""

    connection_age_s: float = 3600.0
    """After this time, give or take a tenth, a connection takes no new calls and clients open another, which proves
    again who they are. 0: never."""

    connection_grace_s: float = 300.0
    """How long calls may go on after that. A transfer that takes longer is taken up again where it was."""

    connection_idle_s: float = 1800.0
    """A connection without calls is closed after this time. 0: never."""

    handshake_s: float = 20.0
    """How long a new connection may take to start speaking HTTP/2."""

    metrics_listen: str | None = None
    """HOST:PORT for Prometheus to read metrics from by HTTP, where port 0 takes a free one. None: no metrics."""

    otlp_endpoint: str | None = None
    """Where spans are sent to by OTLP/gRPC: http://HOST:PORT, or https:// for TLS. None: no traces."""

    access_log: str = "text"
    """The format of the whole log, which has a line for each call: text, or json for one JSON object per line."""

    audit_log: Path | None = None
    """A file that lines of JSON are appended to: who called what, who was refused and why, which files of tokens and
    certificates were read again. None: there is none."""

    def __post_init__(self) -> None:
        if self.access_log not in ACCESS_LOGS:
            raise InvalidRequestError(f"access_log is {self.access_log!r}: it must be {' or '.join(ACCESS_LOGS)}")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise InvalidRequestError(f"{name} is {value}: it must be a number, 0 or more")

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> ServerConfig:
        """From names and values as flags and configuration files have them.

        Raises:
            InvalidRequestError: an unknown name, or a value of another type.
        """
        kinds = require_known(settings, cls)
        return cls(**{name: _setting(name, value, kinds[name]) for name, value in settings.items()})

    @property
    def is_unix(self) -> bool:
        """Whether it listens on a socket file."""
        return self.listen.startswith("unix:")

    @property
    def has_authentication(self) -> bool:
        """Whether callers must say who they are."""
        return self.tokens_file is not None or self.tls_client_ca is not None


def _setting(name: str, value: object, kind: Any) -> Any:
    """A value in the type of its field."""
    if name == "models":
        return tuple(_models(value))
    return typed(name, value, kind)


def _models(value: object) -> list[ModelConfig]:
    """From a list of `NAME_OR_DIR` or `ALIAS=NAME_OR_DIR`, or of tables."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str | dict) for item in value):
        wanted = 'a list like ["NAME_OR_DIR", "ALIAS=NAME_OR_DIR"], or tables [[models]]'
        raise InvalidRequestError(f"models is {value!r}: it must be {wanted}")
    return [
        ModelConfig.parse(item) if isinstance(item, str) else ModelConfig.of(item, f"models[{index}]")
        for index, item in enumerate(value)
    ]
