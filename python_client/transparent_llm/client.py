"""`RemoteTransparentLlm`: the contract, with the model on another machine."""

from __future__ import annotations

import dataclasses
import logging
import operator
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int

from transparent_llm._calls import Calls
from transparent_llm.config import DEFAULT_TIMEOUT_S, ClientConfig
from transparent_llm.contract import ModelInfo, TransparentLlm
from transparent_llm.description import ModelDescription, ServerInfo
from transparent_llm.errors import InvalidRequestError, NotFoundError, NotRunError, NotSupportedError
from transparent_llm.run_input import RunInput, require_token_ids
from transparent_llm.version import API_VERSION
from transparent_llm.wire import model as wire_model
from transparent_llm.wire import runs as wire_runs
from transparent_llm.wire import tensors
from transparent_llm.wire.methods import METHODS

log = logging.getLogger("transparent_llm")
_Self = TypeVar("_Self", bound="RemoteTransparentLlm")


@dataclasses.dataclass(frozen=True)
class _CurrentRun:
    run_input: RunInput
    key: str
    result: wire_runs.RunResult


class RemoteTransparentLlm(TransparentLlm):
    """A `TransparentLlm` whose model lives in a server.

    Nothing is sent before the first call. One object may be used by one thread at a time, as it has one current
    run; `copy()` gives another thread its own, on the same connection.

    Args:
        target: HOST:PORT, unix:PATH or another gRPC target. Default: TRANSPARENT_LLM_ADDRESS, else 127.0.0.1:50051.
        model: Name of the model, needed only where several are served.
        timeout_s: For each call as a whole, transfer included.
        token: Bearer token. Default: TRANSPARENT_LLM_TOKEN.
        tls_ca: File of CA certificates to trust, or "system"; turns TLS on. Default: TRANSPARENT_LLM_TLS_CA.
        device: Where results land.
        progress: Show a bar for transfers over half a second. None: in a terminal or notebook only.
        rerun: Run the sentences again, once, when the server no longer has the run. False: raise `NotFoundError`.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        model: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        token: str | None = None,
        tls_ca: str | None = None,
        device: str | torch.device = "cpu",
        progress: bool | None = None,
        rerun: bool = True,
    ) -> None:
        config = ClientConfig.from_env(target, token, tls_ca)
        self._config = dataclasses.replace(config, timeout_s=timeout_s, progress=progress, rerun=rerun)
        self._calls = Calls(self._config)
        self._model = model or ""
        self._device = torch.device(device)
        self._run: _CurrentRun | None = None

    def __repr__(self) -> str:
        model = f", model={self._model!r}" if self._model else ""
        run = "no run yet" if self._run is None else "run of {} sentences, {} positions".format(*self._shape(self._run))
        return f"<RemoteTransparentLlm({self._config.target!r}{model}): {run}>"

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, also of all copies."""
        self._calls.channel.close()

    def server_info(self) -> ServerInfo:
        """What the server serves and allows, and how exact its models were at load."""
        return wire_model.server_from_wire(self._calls.unary("ServerInfo", wire_model.server_request()))

    def describe(self) -> ModelDescription:
        """Everything the server says about this object's model.

        Raises:
            NotFoundError: it serves no such model.
            InvalidRequestError: it serves several and none was named.
        """
        name = self.model_info().name
        return next(model for model in self.server_info().models if model.info.name == name)

    def is_serving(self) -> bool:
        """Whether the server has loaded its models and answers calls (the standard health check)."""
        return self._calls.is_serving()

    def release(self) -> None:
        """Tell the server that the current run is not needed any more. Reading it again runs it again."""
        run = self._current()
        self._calls.unary("ReleaseRun", wire_runs.release_request(run.result.run_id), run.key)

    def model_info(self) -> ModelInfo:
        response = self._calls.unary("ModelInfo", METHODS["model_info"].request(self._model))
        return wire_model.info_from_wire(response.info)

    def run(self, sentences: list[str]) -> None:
        self._run = self._make_run(RunInput.of_sentences(sentences))

    def run_tokens(self, token_ids: list[list[int]]) -> None:
        self._run = self._make_run(RunInput.of_tokens(token_ids))

    def batch_size(self) -> int:
        return self._current().result.tokens.shape[0]

    def tokens(self) -> Int[torch.Tensor, "batch pos"]:
        return self._landed(self._current().result.tokens.clone())

    def mask(self) -> Bool[torch.Tensor, "batch pos"]:
        mask = self._current().result.mask
        if mask is None:
            raise NotSupportedError("the served model does not tell padding from tokens")
        return self._landed(mask.clone())

    def tokens_to_strings(self, tokens: Int[torch.Tensor, "pos"]) -> list[str]:
        ids = [operator.index(token) for token in tokens]
        require_token_ids(ids)
        request = METHODS["tokens_to_strings"].request(self._model)
        request.token_ids.extend(ids)
        return list(self._calls.unary("TokensToStrings", request).strings)

    def logits(self) -> Float[torch.Tensor, "batch pos d_vocab"]:
        return self._read("logits")

    def unembed(self, t: Float[torch.Tensor, "d_model"], normalize: bool) -> Float[torch.Tensor, "vocab"]:
        request = METHODS["unembed"].request(self._model)
        request.t.CopyFrom(tensors.encode(t))
        request.normalize = normalize
        return self._landed(self._calls.tensor("Unembed", request))

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
        request = METHODS["neuron_output"].request(self._model, layer, neuron)
        return self._landed(self._calls.tensor("NeuronOutput", request))

    def attention_matrix(self, batch_i: int, layer: int, head: int) -> Float[torch.Tensor, "query_pos key_pos"]:
        return self._read("attention_matrix", batch_i, layer, head)

    def attention_output(
        self, batch_i: int, layer: int, pos: int, head: int | None = None
    ) -> Float[torch.Tensor, "d_model"]:
        return self._read("attention_output", batch_i, layer, pos, head)

    def decomposed_attn(self, batch_i: int, layer: int) -> Float[torch.Tensor, "target source head d_model"]:
        return self._read("decomposed_attn", batch_i, layer)

    def _read(self, name: str, *indices: int | None) -> torch.Tensor:
        """One tensor of the current run, which is run again, once, if the server has lost it."""
        run = self._current()
        try:
            return self._read_from(run, name, indices)
        except NotFoundError as error:
            if not self._config.rerun or error.reason != "RUN_NOT_FOUND":
                raise
        log.debug("the server no longer has run %s; running its input again", run.result.run_id)
        again = self._make_run(run.run_input)
        if again.result.model_digest != run.result.model_digest:
            raise NotFoundError(
                f"{self._config.target} lost the run and now serves another model under this name; call run() again "
                "if that is what you want",
                reason="MODEL_CHANGED",
                metadata={"was": run.result.model_digest, "is": again.result.model_digest},
            )
        self._run = again
        return self._read_from(again, name, indices)

    def _read_from(self, run: _CurrentRun, name: str, indices: tuple[int | None, ...]) -> torch.Tensor:
        method = METHODS[name]
        return self._landed(self._calls.tensor(method.rpc, method.request(run.result.run_id, *indices), run.key))

    def _make_run(self, run_input: RunInput) -> _CurrentRun:
        key = run_input.key(self._model)
        response = self._calls.unary("Run", wire_runs.to_request(run_input, self._model), key)
        return _CurrentRun(run_input, key, wire_runs.from_response(response))

    def _current(self) -> _CurrentRun:
        if self._run is None:
            raise NotRunError("nothing has been run yet: call run([sentence, ...]) first")
        return self._run

    def _landed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device)

    @staticmethod
    def _shape(run: _CurrentRun) -> Sequence[int]:
        return run.result.tokens.shape


def connect(target: str | None = None, **options: Any) -> RemoteTransparentLlm:
    """A client that has spoken to its server: reachable, of a known API version, with the wanted model.

    Args:
        target: As for `RemoteTransparentLlm`, which also takes the other arguments.
        options: See `RemoteTransparentLlm`.

    Raises:
        UnavailableError: no server answers there, or it is still loading.
        NotFoundError: it does not serve the model that was named.
    """
    llm = RemoteTransparentLlm(target, **options)
    try:
        info = llm.server_info()
        _compare_versions(info)
        names = [model.info.name for model in info.models]
        if options.get("model") and options["model"] not in names:
            llm.model_info()  # the server's own words on what it serves
    except BaseException:
        llm.close()
        raise
    return llm


def _compare_versions(info: ServerInfo) -> None:
    """Warn, once for a place in the code, when the server speaks another version than this client."""
    theirs, ours = _version(info.api_version), _version(API_VERSION)
    if theirs[0] != ours[0]:
        message = f"server speaks API {info.api_version}, this client {API_VERSION}: calls may fail; install equal ones"
        warnings.warn(message, stacklevel=3)
    elif theirs < ours:
        message = f"server speaks API {info.api_version}, older than this client's {API_VERSION}: new calls will fail"
        warnings.warn(message, stacklevel=3)


def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        raise InvalidRequestError(f"the server's API version {text!r} is no version; is it this service?") from None
