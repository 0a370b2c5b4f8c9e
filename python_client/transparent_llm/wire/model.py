"""What a server says about itself, as messages and back."""

from __future__ import annotations

import dataclasses

from transparent_llm.contract import ModelInfo
from transparent_llm.description import (
    DatasetDescription,
    Limits,
    ModelDescription,
    ModelState,
    ParityCheck,
    SaeDescription,
    ServerInfo,
)
from transparent_llm.quoting import listed, quoted
from transparent_llm.wire import digests, dtypes
from transparent_llm.wire._gen import model_pb2, service_pb2, tensor_pb2
from transparent_llm.wire.protocol_error import ProtocolError

_MOST_LAYERS = _MOST_HEADS = 2**16
"""What code walks along: no model has nearly as many."""

_LONGEST_NAME, _MOST_MODELS, _MOST_SAES, _MOST_DATASETS = 1024, 4096, 4096, 4096

_STATES = {
    ModelState.LOADED: model_pb2.MODEL_STATE_LOADED,
    ModelState.LOADING: model_pb2.MODEL_STATE_LOADING,
    ModelState.UNLOADED: model_pb2.MODEL_STATE_UNLOADED,
    ModelState.FAILED: model_pb2.MODEL_STATE_FAILED,
}
_STATE_BY_WIRE = {wire: state for state, wire in _STATES.items()}


def info_to_wire(info: ModelInfo) -> model_pb2.ModelInfo:
    """ModelInfo as a message; the field names are the same."""
    return model_pb2.ModelInfo(**dataclasses.asdict(info))


def info_from_response(message: service_pb2.ModelInfoResponse) -> ModelInfo:
    """The answer of the ModelInfo RPC.

    Raises:
        ProtocolError: no model has these sizes.
    """
    info = info_from_wire(message.info)
    _require_model(info)
    return info


def info_from_wire(message: model_pb2.ModelInfo) -> ModelInfo:
    """The shape of a model, as a server told it."""
    return ModelInfo(**{field.name: getattr(message, field.name) for field in dataclasses.fields(ModelInfo)})


def description_to_wire(model: ModelDescription) -> model_pb2.ModelDescription:
    """A model's description as a message."""
    return model_pb2.ModelDescription(
        info=info_to_wire(model.info),
        digest=model.digest,
        architecture=model.architecture,
        dtype=dtypes.to_wire(model.dtype) if model.dtype is not None else tensor_pb2.DTYPE_UNSPECIFIED,
        device=model.device,
        n_ctx=model.n_ctx,
        d_ffn=model.d_ffn,
        prepends_bos=model.prepends_bos,
        pad_token_id=model.pad_token_id,
        parity=[model_pb2.ParityCheck(**dataclasses.asdict(check)) for check in model.parity],
        unsupported=[model_pb2.UnsupportedValue(method=m, why=w) for m, w in model.unsupported.items()],
        conventions=dict(model.conventions),
        run_bytes_per_position=model.run_bytes_per_position,
        run_bytes_per_position_pair=model.run_bytes_per_position_pair,
        state=_STATES[model.state],
        aliases=model.aliases,
        detail=model.detail,
        revision=model.revision,
        quantization=model.quantization,
        devices=dict(model.devices),
        weight_bytes=model.weight_bytes,
        on_demand=model.on_demand,
        engine=model.engine,
        saes=[model_pb2.SaeDescription(**dataclasses.asdict(sae)) for sae in model.saes],
    )


def description_from_wire(message: model_pb2.ModelDescription) -> ModelDescription:
    """A model's description from a message.

    Raises:
        ProtocolError: it is of a model that was loaded, and no model has these sizes.
    """
    model = _description(message)
    if message.digest:
        _require_model(model.info)
        if len(model.d_ffn) > model.info.n_layers:
            raise ProtocolError(f"model {quoted(model.info.name)} has neurons in {len(model.d_ffn)} layers")
        if len(model.saes) > _MOST_SAES:
            raise ProtocolError(f"model {quoted(model.info.name)} has {len(model.saes)} sparse autoencoders")
    return model


def _require_model(info: ModelInfo) -> None:
    sizes = (info.n_layers, info.n_heads, info.d_model, info.d_vocab)
    if not (0 < info.n_layers <= _MOST_LAYERS and info.n_heads <= _MOST_HEADS and info.d_model and info.d_vocab):
        raise ProtocolError(f"no model has the layers, heads, d_model and d_vocab {listed(sizes)}")
    if len(info.name) > _LONGEST_NAME:
        raise ProtocolError(f"no model is named {quoted(info.name)}")


def _description(message: model_pb2.ModelDescription) -> ModelDescription:
    return ModelDescription(
        info=info_from_wire(message.info),
        digest=message.digest and digests.checked(message.digest),  # none of a model that was never loaded
        architecture=message.architecture,
        dtype=dtypes.TORCH_BY_WIRE.get(message.dtype),  # a newer server may know more of them
        device=message.device,
        n_ctx=message.n_ctx,
        d_ffn=tuple(message.d_ffn),
        prepends_bos=message.prepends_bos,
        pad_token_id=message.pad_token_id,
        parity=tuple(ParityCheck(c.name, c.max_abs_error, c.tolerance) for c in message.parity),
        unsupported={value.method: value.why for value in message.unsupported},
        conventions=dict(message.conventions),
        run_bytes_per_position=message.run_bytes_per_position,
        run_bytes_per_position_pair=message.run_bytes_per_position_pair,
        state=_STATE_BY_WIRE.get(message.state, ModelState.LOADED),  # an older server tells none
        aliases=tuple(message.aliases),
        detail=message.detail,
        revision=message.revision,
        quantization=message.quantization,
        devices=dict(message.devices),
        weight_bytes=message.weight_bytes,
        on_demand=message.on_demand,
        engine=message.engine,
        saes=tuple(_sae(sae) for sae in message.saes),
    )


def _sae(message: model_pb2.SaeDescription) -> SaeDescription:
    return SaeDescription(**{field.name: getattr(message, field.name) for field in dataclasses.fields(SaeDescription)})


def server_to_wire(info: ServerInfo) -> service_pb2.ServerInfoResponse:
    """The answer of the ServerInfo RPC."""
    return service_pb2.ServerInfoResponse(
        api_version=info.api_version,
        server_version=info.server_version,
        models=[description_to_wire(model) for model in info.models],
        limits=model_pb2.Limits(**dataclasses.asdict(info.limits)),
        features=info.features,
        versions=dict(info.versions),
        stored_runs=info.stored_runs,
        stored_run_bytes=info.stored_run_bytes,
        datasets=[service_pb2.DatasetDescription(**dataclasses.asdict(each)) for each in info.datasets],
    )


def server_from_wire(message: service_pb2.ServerInfoResponse) -> ServerInfo:
    """What the ServerInfo RPC answered.

    Raises:
        ProtocolError: no server has so many models or data sets, or no model these sizes.
    """
    if len(message.models) > _MOST_MODELS or len(message.datasets) > _MOST_DATASETS:
        raise ProtocolError(f"no server has {len(message.models)} models and {len(message.datasets)} data sets")
    limits = {field.name: getattr(message.limits, field.name) for field in dataclasses.fields(Limits)}
    return ServerInfo(
        api_version=message.api_version,
        server_version=message.server_version,
        models=tuple(description_from_wire(model) for model in message.models),
        limits=Limits(**limits),
        features=tuple(message.features),
        versions=dict(message.versions),
        stored_runs=message.stored_runs,
        stored_run_bytes=message.stored_run_bytes,
        datasets=tuple(DatasetDescription(each.name, each.n_sentences) for each in message.datasets),
    )
