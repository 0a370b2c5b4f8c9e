from . import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_LOADED: _ClassVar[ModelState]
    MODEL_STATE_LOADING: _ClassVar[ModelState]
    MODEL_STATE_UNLOADED: _ClassVar[ModelState]
    MODEL_STATE_FAILED: _ClassVar[ModelState]
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_LOADED: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_UNLOADED: ModelState
MODEL_STATE_FAILED: ModelState

class ModelInfo(_message.Message):
    __slots__ = ("name", "n_params_estimate", "n_layers", "n_heads", "d_model", "d_vocab")
    NAME_FIELD_NUMBER: _ClassVar[int]
    N_PARAMS_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    N_LAYERS_FIELD_NUMBER: _ClassVar[int]
    N_HEADS_FIELD_NUMBER: _ClassVar[int]
    D_MODEL_FIELD_NUMBER: _ClassVar[int]
    D_VOCAB_FIELD_NUMBER: _ClassVar[int]
    name: str
    n_params_estimate: int
    n_layers: int
    n_heads: int
    d_model: int
    d_vocab: int
    def __init__(self, name: _Optional[str] = ..., n_params_estimate: _Optional[int] = ..., n_layers: _Optional[int] = ..., n_heads: _Optional[int] = ..., d_model: _Optional[int] = ..., d_vocab: _Optional[int] = ...) -> None: ...

class ParityCheck(_message.Message):
    __slots__ = ("name", "max_abs_error", "tolerance")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_ABS_ERROR_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_abs_error: float
    tolerance: float
    def __init__(self, name: _Optional[str] = ..., max_abs_error: _Optional[float] = ..., tolerance: _Optional[float] = ...) -> None: ...

class UnsupportedValue(_message.Message):
    __slots__ = ("method", "why")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    method: str
    why: str
    def __init__(self, method: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class SaeDescription(_message.Message):
    __slots__ = ("name", "site", "output_site", "architecture", "d_in", "d_sae", "d_out", "digest", "weight_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SITE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    D_IN_FIELD_NUMBER: _ClassVar[int]
    D_SAE_FIELD_NUMBER: _ClassVar[int]
    D_OUT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    site: str
    output_site: str
    architecture: str
    d_in: int
    d_sae: int
    d_out: int
    digest: str
    weight_bytes: int
    def __init__(self, name: _Optional[str] = ..., site: _Optional[str] = ..., output_site: _Optional[str] = ..., architecture: _Optional[str] = ..., d_in: _Optional[int] = ..., d_sae: _Optional[int] = ..., d_out: _Optional[int] = ..., digest: _Optional[str] = ..., weight_bytes: _Optional[int] = ...) -> None: ...

class ModelDescription(_message.Message):
    __slots__ = ("info", "digest", "architecture", "dtype", "device", "n_ctx", "d_ffn", "prepends_bos", "pad_token_id", "parity", "unsupported", "conventions", "run_bytes_per_position", "run_bytes_per_position_pair", "state", "aliases", "detail", "revision", "quantization", "devices", "weight_bytes", "on_demand", "engine", "saes")
    class ConventionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class DevicesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    INFO_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    N_CTX_FIELD_NUMBER: _ClassVar[int]
    D_FFN_FIELD_NUMBER: _ClassVar[int]
    PREPENDS_BOS_FIELD_NUMBER: _ClassVar[int]
    PAD_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    UNSUPPORTED_FIELD_NUMBER: _ClassVar[int]
    CONVENTIONS_FIELD_NUMBER: _ClassVar[int]
    RUN_BYTES_PER_POSITION_FIELD_NUMBER: _ClassVar[int]
    RUN_BYTES_PER_POSITION_PAIR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ON_DEMAND_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SAES_FIELD_NUMBER: _ClassVar[int]
    info: ModelInfo
    digest: str
    architecture: str
    dtype: _tensor_pb2.Dtype
    device: str
    n_ctx: int
    d_ffn: _containers.RepeatedScalarFieldContainer[int]
    prepends_bos: bool
    pad_token_id: int
    parity: _containers.RepeatedCompositeFieldContainer[ParityCheck]
    unsupported: _containers.RepeatedCompositeFieldContainer[UnsupportedValue]
    conventions: _containers.ScalarMap[str, str]
    run_bytes_per_position: int
    run_bytes_per_position_pair: int
    state: ModelState
    aliases: _containers.RepeatedScalarFieldContainer[str]
    detail: str
    revision: str
    quantization: str
    devices: _containers.ScalarMap[str, int]
    weight_bytes: int
    on_demand: bool
    engine: str
    saes: _containers.RepeatedCompositeFieldContainer[SaeDescription]
    def __init__(self, info: _Optional[_Union[ModelInfo, _Mapping]] = ..., digest: _Optional[str] = ..., architecture: _Optional[str] = ..., dtype: _Optional[_Union[_tensor_pb2.Dtype, str]] = ..., device: _Optional[str] = ..., n_ctx: _Optional[int] = ..., d_ffn: _Optional[_Iterable[int]] = ..., prepends_bos: bool = ..., pad_token_id: _Optional[int] = ..., parity: _Optional[_Iterable[_Union[ParityCheck, _Mapping]]] = ..., unsupported: _Optional[_Iterable[_Union[UnsupportedValue, _Mapping]]] = ..., conventions: _Optional[_Mapping[str, str]] = ..., run_bytes_per_position: _Optional[int] = ..., run_bytes_per_position_pair: _Optional[int] = ..., state: _Optional[_Union[ModelState, str]] = ..., aliases: _Optional[_Iterable[str]] = ..., detail: _Optional[str] = ..., revision: _Optional[str] = ..., quantization: _Optional[str] = ..., devices: _Optional[_Mapping[str, int]] = ..., weight_bytes: _Optional[int] = ..., on_demand: bool = ..., engine: _Optional[str] = ..., saes: _Optional[_Iterable[_Union[SaeDescription, _Mapping]]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_tokens_per_run", "max_sentences_per_run", "run_store_bytes", "run_ttl_seconds", "max_chunk_bytes", "queue_length", "max_read_bytes", "run_bytes_per_owner", "max_streams", "max_streams_per_owner", "model_bytes", "max_text_bytes", "max_items", "max_read_work", "vector_store_bytes", "vector_bytes_per_owner", "vectors_per_owner", "max_vector_elements", "max_sweep_cells", "max_sweep_positions")
    MAX_TOKENS_PER_RUN_FIELD_NUMBER: _ClassVar[int]
    MAX_SENTENCES_PER_RUN_FIELD_NUMBER: _ClassVar[int]
    RUN_STORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RUN_TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    RUN_BYTES_PER_OWNER_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAMS_PER_OWNER_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_READ_WORK_FIELD_NUMBER: _ClassVar[int]
    VECTOR_STORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VECTOR_BYTES_PER_OWNER_FIELD_NUMBER: _ClassVar[int]
    VECTORS_PER_OWNER_FIELD_NUMBER: _ClassVar[int]
    MAX_VECTOR_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_SWEEP_CELLS_FIELD_NUMBER: _ClassVar[int]
    MAX_SWEEP_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    max_tokens_per_run: int
    max_sentences_per_run: int
    run_store_bytes: int
    run_ttl_seconds: float
    max_chunk_bytes: int
    queue_length: int
    max_read_bytes: int
    run_bytes_per_owner: int
    max_streams: int
    max_streams_per_owner: int
    model_bytes: int
    max_text_bytes: int
    max_items: int
    max_read_work: int
    vector_store_bytes: int
    vector_bytes_per_owner: int
    vectors_per_owner: int
    max_vector_elements: int
    max_sweep_cells: int
    max_sweep_positions: int
    def __init__(self, max_tokens_per_run: _Optional[int] = ..., max_sentences_per_run: _Optional[int] = ..., run_store_bytes: _Optional[int] = ..., run_ttl_seconds: _Optional[float] = ..., max_chunk_bytes: _Optional[int] = ..., queue_length: _Optional[int] = ..., max_read_bytes: _Optional[int] = ..., run_bytes_per_owner: _Optional[int] = ..., max_streams: _Optional[int] = ..., max_streams_per_owner: _Optional[int] = ..., model_bytes: _Optional[int] = ..., max_text_bytes: _Optional[int] = ..., max_items: _Optional[int] = ..., max_read_work: _Optional[int] = ..., vector_store_bytes: _Optional[int] = ..., vector_bytes_per_owner: _Optional[int] = ..., vectors_per_owner: _Optional[int] = ..., max_vector_elements: _Optional[int] = ..., max_sweep_cells: _Optional[int] = ..., max_sweep_positions: _Optional[int] = ...) -> None: ...
