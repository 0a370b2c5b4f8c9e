"""`RemoteTransparentLlm`: the contract, with the model on another machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int

from transparent_llm.analysis.methods import Analyses
from transparent_llm.analysis.uncut import require_uncut
from transparent_llm.client.ask import form
from transparent_llm.client.circuits import RemoteCircuits
from transparent_llm.client.config import DEFAULT_TIMEOUT_S, ClientConfig
from transparent_llm.client.connected import AXES
from transparent_llm.client.device import device_of
from transparent_llm.client.differentiating import RemoteDifferentiating
from transparent_llm.client.generating import RemoteGenerating
from transparent_llm.client.plan import PlannedRead
from transparent_llm.client.progress import Report
from transparent_llm.client.reads import ReadSpec, Result, checked
from transparent_llm.client.sweeping import RemoteSweeping
from transparent_llm.contract import ModelInfo
from transparent_llm.description import ModelDescription, ServerInfo
from transparent_llm.errors import DeadlineError, NotSupportedError, UnavailableError
from transparent_llm.run_input import checked_bos, ids_of, one_text
from transparent_llm.runtime.plain_torch import plain_torch
from transparent_llm.runtime.residual import require_residual
from transparent_llm.runtime.short_tracebacks import short_tracebacks
from transparent_llm.selection import Padding, Selection
from transparent_llm.table import Table
from transparent_llm.wire import requests, responses

_Self = TypeVar("_Self", bound="RemoteTransparentLlm")


@short_tracebacks
class RemoteTransparentLlm(RemoteGenerating, RemoteSweeping, RemoteCircuits, RemoteDifferentiating, Analyses):
    """A `TransparentLlm` whose model lives in a server.

    Nothing is sent before the first call. An object has one current run, which other threads may read; `copy()` gives
    a thread its own, on the same connection. A thread (or task of asyncio) whose run another one has replaced is told
    so by `NotRunError`, and never gets values of the other's. Pickled, for a worker process, it is its target and
    settings, with a token only as the variable of the environment that has it; there it connects anew and has no run.

    Args:
        target: HOST[:PORT], unix:PATH or another gRPC target. Default: TRANSPARENT_LLM_ADDRESS, else 127.0.0.1:50051.
            ipv4:A:PORT,B:PORT and dns:///NAME:PORT name several servers, among which each run is given its own.
        model: Name of the model, needed only where several are served.
        timeout_s: For each call as a whole, transfer included.
        token: Bearer token. Default: TRANSPARENT_LLM_TOKEN.
        tls_ca: File of CA certificates to trust, or "system"; turns TLS on. Default: TRANSPARENT_LLM_TLS_CA.
        tls_cert: File of a certificate to show to the server. Default: TRANSPARENT_LLM_TLS_CERT, else none.
        tls_key: File of its private key. Default: TRANSPARENT_LLM_TLS_KEY.
        proxy: http://HOST:PORT, "environment" or "none". Default: TRANSPARENT_LLM_PROXY, else as ADR 19 has it.
        device: Where results land.
        progress: Show a bar for transfers over half a second. None: in a terminal or notebook only. Or a function that
            is called with the RPC's name, the bytes that have come, and all of them (by read-ahead in another thread).
        rerun: Run the sentences again when the server no longer has the run. False: raise `NotFoundError`.
        cache_bytes: Limit of the tensors of current runs that are kept. 0: keep nothing, read nothing ahead.
        read_ahead_bytes: The most that is read ahead for code that walks heads, layers or positions. 0: nothing.
        weights_bytes: Limit of the output vectors of neurons, weights of heads and scores of them that are kept.
        weights_dir: Folder to keep vectors and scores in beyond this process. Default: TRANSPARENT_LLM_WEIGHTS_DIR.
        weights_dir_bytes: Limit of its files.
        shared_memory: Take large tensors through shared memory from a server of this host and user, if it agrees.
        max_bytes: The most that one value may take here; a larger one raises `TooLargeError` before it is sent.
        max_message_bytes: The largest single message that is accepted. Tensors come in chunks of at most 4 MiB.
        keepalive_s: When a call has received nothing for this long, the server is pinged.
        keepalive_timeout_s: A server that answers no ping for this long is lost, whatever time the call has left.
        reconnect_s: How long a call waits for a server that had answered before and was lost, within `timeout_s`.
        padding: "nan": floating values are NaN at padded positions. "keep": they are what the model computed there.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        model: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        token: str | None = None,
        tls_ca: str | None = None,
        tls_cert: str | None = None,
        tls_key: str | None = None,
        proxy: str | None = None,
        device: str | torch.device = "cpu",
        progress: bool | Report | None = None,
        rerun: bool = True,
        cache_bytes: int = ClientConfig.cache_bytes,
        read_ahead_bytes: int = ClientConfig.read_ahead_bytes,
        weights_bytes: int = ClientConfig.weights_bytes,
        weights_dir: str | os.PathLike[str] | None = None,
        weights_dir_bytes: int = ClientConfig.weights_dir_bytes,
        shared_memory: bool = True,
        max_bytes: int | None = None,
        max_message_bytes: int = ClientConfig.max_message_bytes,
        keepalive_s: float = ClientConfig.keepalive_s,
        keepalive_timeout_s: float = ClientConfig.keepalive_timeout_s,
        reconnect_s: float = ClientConfig.reconnect_s,
        padding: Padding = "keep",
    ) -> None:
        config = ClientConfig.from_env(
            *(target, token, tls_ca, tls_cert, tls_key),
            proxy=proxy,
            weights_dir=weights_dir,
            timeout_s=timeout_s,
            progress=progress,
            rerun=rerun,
            cache_bytes=cache_bytes,
            read_ahead_bytes=read_ahead_bytes,
            weights_bytes=weights_bytes,
            weights_dir_bytes=weights_dir_bytes,
            shared_memory=shared_memory,
            max_bytes=max_bytes,
            max_message_bytes=max_message_bytes,
            keepalive_s=keepalive_s,
            keepalive_timeout_s=keepalive_timeout_s,
            reconnect_s=reconnect_s,
            padding=padding,
        )
        self._set_up(config, model or "", device_of(device))

    def server_info(self) -> ServerInfo:
        """What the server serves and allows, and how exact its models were at load."""
        return self._shared.models.ask()

    def describe(self) -> ModelDescription:
        """Everything the server says about this object's model.

        Raises:
            NotFoundError: it serves no such model.
            InvalidRequestError: it serves several and none was named.
        """
        return self.server_info().model(self.model_info().name)

    def describe_run(self) -> Table:
        """Also raises InvalidRequestError within a `reading` block that cuts axes, whose positions would be others."""
        require_uncut(self)
        return super().describe_run()

    def dataset(self, name: str) -> list[str]:
        """The sentences of a data set that the server's operator offers; `server_info().datasets` names them.

        Raises:
            InvalidRequestError: there is none of this name.
            NotSupportedError: the server is older than data sets.
        """
        self._shared.models.require("datasets")
        return self._calls.unary("Dataset", requests.dataset(name), responses.sentences)

    def is_serving(self) -> bool:
        """Whether the server has loaded its models and answers calls (the standard check); False if none does."""
        try:
            return self._calls.is_serving()
        except (UnavailableError, DeadlineError):
            return False

    def release(self) -> None:
        """Tell the server that the current run is not needed any more. Reading it again runs it again."""
        run = self._runs.current()
        self._calls.unary("ReleaseRun", requests.release(run.result.run_id), responses.released, run.key)

    def run_id(self) -> str:
        """The name of the current run on the server: a hash of model, tokens and owner. Needs no call.

        Raises:
            NotRunError: nothing was run yet.
        """
        return self._runs.current().result.run_id

    def model_info(self) -> ModelInfo:
        return self._calls.unary("ModelInfo", requests.model_info(self._model), responses.model_info)

    def reading(
        self: _Self, *, dtype: torch.dtype | None = None, padding: Padding | None = None, **axes: slice
    ) -> AbstractContextManager[_Self]:
        """Within a `with` block: ask for parts of axes, and for a smaller element type, of every value that is read.

        Values keep their axes, which are shorter: `with llm.reading(pos=slice(-1, None), dtype=torch.bfloat16): ...`.
        A value without such an axis is refused. The server cuts before it sends or computes. Blocks can be nested. A
        block is for the thread that opens it; while it is open, reads of this object by others raise.

        Args:
            dtype: Of floating values. None: as the server holds them.
            padding: "nan" or "keep", see the class. None: as before.
            axes: A slice for each axis that is cut, by the name that the method's annotation gives it.

        Raises:
            InvalidRequestError: an axis that no value has, something else than a slice, no floating dtype, or another
                choice for padding.
        """
        Selection().narrowed(dtype, axes, AXES, padding)  # said where the block is written, not where it begins
        return self._within(lambda before: before.narrowed(dtype, axes, AXES, padding))

    def fetch(self, reads: Sequence[ReadSpec]) -> list[torch.Tensor | Any]:
        """Many values of the current run in one stream: each is what the method of that name returns, a tensor for all
        methods so far.

        Args:
            reads: ("residual_in", 3), ("attention_matrix", 0, 3, 7), "logits" and so on: a method that reads the run,
                and its arguments; last, what is wanted of its axes: ("logits", {"pos": slice(-1, None)}).
        """
        return self._of_reads(reads, lambda _, asks: [self._to_device(value) for value in self._reader.read_many(asks)])

    def fetch_each(self, reads: Sequence[ReadSpec]) -> Iterator[torch.Tensor | Any]:
        """As `fetch`, one value after another, each as soon as it has come: the server is at work on the next ones.

        All are of the run that is current now. A loop that is left ends the server's work.
        """
        self._runs.current()
        return self.copy()._each(reads)

    def prefetch(self, reads: Sequence[ReadSpec]) -> None:
        """As `fetch`, but only keep them: the methods then answer without a call, within the limits of the cache."""
        self._of_reads(reads, lambda _, asks: self._reader.prefetch(asks))

    def plan(self, reads: Sequence[ReadSpec]) -> list[PlannedRead]:
        """Shapes, bytes and types of what `fetch` would bring, cut as a `reading` block says; nothing is computed."""
        return self._of_reads(reads, self._reader.plan)

    def batch_size(self) -> int:
        return self._runs.current().result.tokens.shape[0]

    def tokens(self) -> Int[torch.Tensor, "batch pos"]:
        return self._part("tokens", self._runs.current().result.tokens)

    def mask(self) -> Bool[torch.Tensor, "batch pos"]:
        mask = self._runs.current().result.mask
        if mask is None:
            raise NotSupportedError("the served model does not distinguish padding from tokens")
        return self._part("mask", mask)

    def tokens_to_strings(self, tokens: Int[torch.Tensor, "pos"]) -> list[str]:
        ids = ids_of(tokens)
        request = requests.tokens_to_strings(self._model, self._runs.digest, ids)
        read = partial(responses.strings, count=len(ids))
        return self._calls.unary("TokensToStrings", request, read)

    @plain_torch()
    def to_tokens(self, text: str, *, add_bos: bool | None = None) -> Int[torch.Tensor, "pos"]:
        return self._to_device(torch.tensor(self._tokenized(text, add_bos)[0], dtype=torch.int64))

    def to_str_tokens(self, text: str, *, add_bos: bool | None = None) -> list[str]:
        return self._tokenized(text, add_bos)[1]

    def _tokenized(self, text: str, add_bos: bool | None) -> tuple[list[int], list[str]]:
        request = requests.tokenize(self._model, self._runs.digest, one_text(text), checked_bos(add_bos))
        return self._calls.unary("Tokenize", request, responses.tokenized)

    def last(self) -> Int[torch.Tensor, "batch"]:
        mask = self._runs.current().result.mask
        if mask is None:
            return super().last()
        return self._to_device(mask.sum(dim=1) - 1)  # of whole rows, whatever a `reading` block cuts

    def logits(self) -> Float[torch.Tensor, "batch pos d_vocab"]:
        return self._read("logits")

    @plain_torch()
    def unembed(self, t: Float[torch.Tensor, "d_model"], normalize: bool) -> Float[torch.Tensor, "vocab"]:
        require_residual(t, normalize)
        selection, digest = self._own_selection.get(), self._runs.digest
        request = requests.unembed(self._model, digest, t, normalize=normalize, form=form("unembed", selection))
        n = t.shape[0] if t.ndim == 2 else None
        return self._to_device(self._reader.of_model(self._runs.latest, "unembed", request, selection, n))

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

    @plain_torch()
    def neuron_output(self, layer: int, neuron: int) -> Float[torch.Tensor, "d_model"]:
        selection, (at_layer, at_neuron) = self._own_selection.get(), checked("neuron_output", (layer, neuron))[0]
        wanted = form("neuron_output", selection)
        request = requests.neuron_output(self._model, self._runs.digest, at_layer, at_neuron, wanted)
        kept = self._reader.neuron_output(self._runs.latest, at_layer, at_neuron) if selection == Selection() else None
        if kept is None:
            kept = self._reader.of_model(self._runs.latest, "neuron_output", request, selection)
        return self._to_device(kept)

    def attention_matrix(self, batch_i: int, layer: int, head: int) -> Float[torch.Tensor, "query_pos key_pos"]:
        return self._read("attention_matrix", batch_i, layer, head)

    def attention_output(
        self, batch_i: int, layer: int, pos: int, head: int | None = None
    ) -> Float[torch.Tensor, "d_model"]:
        return self._read("attention_output", batch_i, layer, pos, head)

    def decomposed_attn(self, batch_i: int, layer: int) -> Float[torch.Tensor, "target source head d_model"]:
        return self._read("decomposed_attn", batch_i, layer)

    def _read(self, name: str, *indices: int | None) -> Result:
        """One value of the current run."""
        return self._of_reads([(name, *indices)], lambda _, asks: self._to_device(self._reader.read(asks[0])))

    def _part(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """What a `reading` block leaves of a tensor [batch pos] that is here already, as a copy for the caller."""
        axes = self._own_selection.get().cut(name, ("batch", "pos"))
        with plain_torch():
            return self._to_device(tensor[axes.get("batch", slice(None)), axes.get("pos", slice(None))].clone())
