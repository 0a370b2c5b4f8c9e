"""Everything about a server that can be set, with its unit in its name and its default once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from transparent_llm.errors import InvalidRequestError

MIB = 2**20
DEFAULT_SHARED_POSITIONS = 8192
"""On a GPU."""

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

    models: tuple[ModelConfig, ...] = ()
    """None: the embedded demo model."""

    device: str = "auto"
    dtype: torch.dtype = torch.float32

    threads: int = 64
    """Calls that are answered at the same time, streams included."""

    queue_length: int = 32
    """Calls that wait for the model; one more is told to come back. Each holds a thread, so fewer than `threads`."""

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

    @property
    def is_unix(self) -> bool:
        """Whether it listens on a socket file."""
        return self.listen.startswith("unix:")

    @property
    def has_authentication(self) -> bool:
        """Whether callers must say who they are."""
        return self.tokens_file is not None or self.tls_client_ca is not None
