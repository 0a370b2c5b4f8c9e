"""Everything about a server that can be set, with its unit in its name and its default once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch

from transparent_llm.errors import InvalidRequestError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MIB = 2**20
DEFAULT_SHARED_POSITIONS = 8192
"""On a GPU."""

ACCESS_LOGS = ("text", "json")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve."""

    source: str
    """A local folder or a hub name."""

    alias: str
    """The name that clients use."""

    @classmethod
    def parse(cls, text: str) -> ModelConfig:
        """From `NAME_OR_DIR` or `ALIAS=NAME_OR_DIR`; a folder is called by its own name.

        Raises:
            InvalidRequestError: one of the two sides is empty.
        """
        alias, equals, source = text.partition("=")
        if os.path.exists(text) or not equals:
            alias, source = "", text
        if not source or (equals and not alias and not os.path.exists(text)):
            raise InvalidRequestError(f"--model {text!r}: write NAME_OR_DIR or ALIAS=NAME_OR_DIR")
        folder = os.path.isdir(source)
        own_name = Path(source).resolve().name if folder else source
        return cls(source=source, alias=alias or own_name or source)


@dataclass(frozen=True)
class ServerConfig:
    """A server. The defaults suit one machine and one team."""

    listen: str = "127.0.0.1:50051"
    """HOST:PORT, where port 0 takes a free one, or unix:PATH."""

    probe_listen: str | None = None
    """HOST:PORT where the health service, and nothing else, is answered without TLS or tokens: probes of a cluster
    have neither. None: nowhere."""

    models: tuple[ModelConfig, ...] = ()
    """None: the embedded demo model."""

    device: str = "auto"
    dtype: torch.dtype = torch.float32

    max_streams: int = 160
    """Calls under way at the same time; one more is told to come back. Each has a thread."""

    spare_threads: int = 16
    """Which tell the others at once."""

    max_streams_per_owner: int = 64
    """Of these, the most for one owner, where callers say who they are."""

    queue_length: int = 32
    """Runs that wait for the model; one more is told to come back. Fewer than `max_streams`, so that reads go on."""

    shared_positions: int | None = None
    """Positions, padding included, of one forward pass that runs of several clients share. 0: each has its own. None:
    8192 on a GPU, 0 on the CPU."""

    share_window_s: float = 0.002
    """How long the model waits for more runs to share a forward pass with."""

    sweep_s: float = 10.0
    """How often runs past their time are looked for."""

    busy_retry_s: float = 1.0
    """What a refused call is told to wait."""

    run_store_bytes: int = 4 * 2**30
    run_bytes_per_owner: int | None = None
    """Of all that is stored, the most for one owner. None: all of it."""

    run_ttl_s: float = 3600.0
    """A run that nobody read for so long is dropped."""

    max_tokens_per_run: int = 65_536
    """Padding included."""

    max_sentences_per_run: int = 1024
    max_read_bytes: int = 16 * 2**30
    """One answer: a tensor, or all of a Fetch."""

    chunk_bytes: int = MIB
    """Data in one message of a stream."""

    max_chunk_bytes: int = 4 * MIB
    """The most that a client can ask for."""

    shared_memory: bool = True
    """Send large tensors through shared memory to clients of the same host and user that offer it."""

    max_request_bytes: int = 4 * MIB
    drain_announce_s: float = 0.0
    """How long after SIGTERM health says NOT_SERVING while new calls are still answered."""

    drain_s: float = 30.0
    """How long calls may go on after that."""

    stall_s: float = 60.0
    """A stream that its client did not read for so long is cut off, which frees its thread. 0: never."""

    shortest_ping_s: float = 5.0
    """Clients that ask more often whether the connection lives are sent away."""

    tokens_file: Path | None = None
    """Owners and the SHA-256 of their tokens; see `tokens`. None: no token is asked for."""

    tls_cert: Path | None = None
    """The server's certificate with its chain (PEM). None: no TLS."""

    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """Clients must show a certificate of these authorities (PEM)."""

    insecure: bool = False
    """Listen beyond this host also without authentication or encryption."""

    log_prompts: bool = False
    """Write sentences, and the words of incidents, into the log."""

    max_metadata_bytes: int = 16 * 2**10
    """Headers of a call; one with more is refused."""

    max_streams_per_connection: int = 128
    """Calls under way; a client keeps more of them back."""

    connection_age_s: float = 3600.0
    """After this time, give or take a tenth, a connection takes no new calls and clients open another, which proves
    again who they are. 0: never."""

    connection_grace_s: float = 300.0
    """How long calls may go on after that. A transfer that takes longer is taken up again where it was."""

    connection_idle_s: float = 1800.0
    """A connection without calls is closed after this time. 0: never."""

    handshake_s: float = 20.0
    """What a client may take to begin to speak."""

    metrics_listen: str | None = None
    """HOST:PORT for Prometheus to read metrics from by HTTP, where port 0 takes a free one. None: no metrics."""

    otlp_endpoint: str | None = None
    """Where spans are sent to by OTLP/gRPC: http://HOST:PORT, or https:// for TLS. None: no traces."""

    access_log: str = "text"
    """The form of the whole log, which has a line for each call: text, or json for one JSON object a line."""

    def __post_init__(self) -> None:
        if self.access_log not in ACCESS_LOGS:
            raise InvalidRequestError(f"access_log is {self.access_log!r}: it must be {' or '.join(ACCESS_LOGS)}")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not value >= 0:
                raise InvalidRequestError(f"{name} is {value}: it must be 0 or more")

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> ServerConfig:
        """From names and values as flags and configuration files have them.

        Raises:
            InvalidRequestError: an unknown name, or a value of another type.
        """
        kinds = get_type_hints(cls)
        unknown = sorted(set(settings) - set(kinds))
        if unknown:
            raise InvalidRequestError(f"there is no setting {', '.join(unknown)}; there are {', '.join(sorted(kinds))}")
        return cls(**{name: _setting(name, value, kinds[name]) for name, value in settings.items()})

    @property
    def is_unix(self) -> bool:
        """Whether it listens on a socket file."""
        return self.listen.startswith("unix:")

    @property
    def has_authentication(self) -> bool:
        """Whether callers must say who they are."""
        return self.tokens_file is not None or self.tls_client_ca is not None


def settings_of(path: Path) -> dict[str, object]:
    """What a configuration file (TOML) sets: the names are those of `ServerConfig`.

    Raises:
        InvalidRequestError: it is not there, or no TOML.
    """
    try:
        settings: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"cannot read the configuration {path}: {error}") from error
    return settings


def _setting(name: str, value: object, kind: Any) -> Any:
    """A value in the type of its field."""
    if name == "models" and isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return tuple(ModelConfig.parse(text) for text in value)
    if name == "dtype" and value in DTYPES:
        return DTYPES[str(value)]
    kinds = get_args(kind) or (kind,)
    if Path in kinds and isinstance(value, str | Path):
        return Path(value)
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        raise InvalidRequestError(f"{name} is {value!r}: it must be {_WORDS.get(name) or _wanted(kinds)}")
    return value


_WORDS = {"models": 'a list like ["NAME_OR_DIR", "ALIAS=NAME_OR_DIR"]', "dtype": f"one of {', '.join(DTYPES)}"}


def _wanted(kinds: tuple[type, ...]) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "the name of a file"}
    return " or ".join(words[kind] for kind in kinds if kind in words)
