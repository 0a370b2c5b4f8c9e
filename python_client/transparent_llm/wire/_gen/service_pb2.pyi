from . import analysis_pb2 as _analysis_pb2
from . import circuits_pb2 as _circuits_pb2
from . import features_pb2 as _features_pb2
from . import generation_pb2 as _generation_pb2
from . import gradients_pb2 as _gradients_pb2
from . import interventions_pb2 as _interventions_pb2
from . import method_pb2 as _method_pb2
from . import model_pb2 as _model_pb2
from . import sweeps_pb2 as _sweeps_pb2
from . import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfoResponse(_message.Message):
    __slots__ = ("api_version", "server_version", "models", "limits", "features", "versions", "stored_runs", "stored_run_bytes", "datasets")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    API_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    STORED_RUNS_FIELD_NUMBER: _ClassVar[int]
    STORED_RUN_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    api_version: str
    server_version: str
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.ModelDescription]
    limits: _model_pb2.Limits
    features: _containers.RepeatedScalarFieldContainer[str]
    versions: _containers.ScalarMap[str, str]
    stored_runs: int
    stored_run_bytes: int
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetDescription]
    def __init__(self, api_version: _Optional[str] = ..., server_version: _Optional[str] = ..., models: _Optional[_Iterable[_Union[_model_pb2.ModelDescription, _Mapping]]] = ..., limits: _Optional[_Union[_model_pb2.Limits, _Mapping]] = ..., features: _Optional[_Iterable[str]] = ..., versions: _Optional[_Mapping[str, str]] = ..., stored_runs: _Optional[int] = ..., stored_run_bytes: _Optional[int] = ..., datasets: _Optional[_Iterable[_Union[DatasetDescription, _Mapping]]] = ...) -> None: ...

class DatasetDescription(_message.Message):
    __slots__ = ("name", "n_sentences")
    NAME_FIELD_NUMBER: _ClassVar[int]
    N_SENTENCES_FIELD_NUMBER: _ClassVar[int]
    name: str
    n_sentences: int
    def __init__(self, name: _Optional[str] = ..., n_sentences: _Optional[int] = ...) -> None: ...

class DatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DatasetResponse(_message.Message):
    __slots__ = ("sentences",)
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    sentences: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sentences: _Optional[_Iterable[str]] = ...) -> None: ...

class ModelInfoRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ModelInfoResponse(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: _model_pb2.ModelInfo
    def __init__(self, info: _Optional[_Union[_model_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class SentenceBatch(_message.Message):
    __slots__ = ("sentences",)
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    sentences: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sentences: _Optional[_Iterable[str]] = ...) -> None: ...

class TokenSequence(_message.Message):
    __slots__ = ("token_ids",)
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class TokenBatch(_message.Message):
    __slots__ = ("sequences",)
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[TokenSequence]
    def __init__(self, sequences: _Optional[_Iterable[_Union[TokenSequence, _Mapping]]] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("model", "sentences", "tokens", "add_bos", "edits")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ADD_BOS_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    model: str
    sentences: SentenceBatch
    tokens: TokenBatch
    add_bos: bool
    edits: _containers.RepeatedCompositeFieldContainer[_interventions_pb2.Intervention]
    def __init__(self, model: _Optional[str] = ..., sentences: _Optional[_Union[SentenceBatch, _Mapping]] = ..., tokens: _Optional[_Union[TokenBatch, _Mapping]] = ..., add_bos: bool = ..., edits: _Optional[_Iterable[_Union[_interventions_pb2.Intervention, _Mapping]]] = ...) -> None: ...

class RunResponse(_message.Message):
    __slots__ = ("run_id", "batch_size", "n_pos", "token_ids", "mask", "token_strings", "stored_bytes", "model_digest", "warnings", "effects", "unedited_run_id")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    N_POS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    TOKEN_STRINGS_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    UNEDITED_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_size: int
    n_pos: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    mask: _containers.RepeatedScalarFieldContainer[bool]
    token_strings: _containers.RepeatedScalarFieldContainer[str]
    stored_bytes: int
    model_digest: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    effects: _containers.RepeatedCompositeFieldContainer[_interventions_pb2.EditEffect]
    unedited_run_id: str
    def __init__(self, run_id: _Optional[str] = ..., batch_size: _Optional[int] = ..., n_pos: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., mask: _Optional[_Iterable[bool]] = ..., token_strings: _Optional[_Iterable[str]] = ..., stored_bytes: _Optional[int] = ..., model_digest: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., effects: _Optional[_Iterable[_Union[_interventions_pb2.EditEffect, _Mapping]]] = ..., unedited_run_id: _Optional[str] = ...) -> None: ...

class ReleaseRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class ReleaseRunResponse(_message.Message):
    __slots__ = ("released",)
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    released: bool
    def __init__(self, released: bool = ...) -> None: ...

class KeepVectorRequest(_message.Message):
    __slots__ = ("name", "vector")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    vector: _tensor_pb2.Tensor
    def __init__(self, name: _Optional[str] = ..., vector: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class KeepVectorResponse(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class ListVectorsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListVectorsResponse(_message.Message):
    __slots__ = ("vectors",)
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedCompositeFieldContainer[KeptVector]
    def __init__(self, vectors: _Optional[_Iterable[_Union[KeptVector, _Mapping]]] = ...) -> None: ...

class KeptVector(_message.Message):
    __slots__ = ("name", "digest", "dtype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    dtype: _tensor_pb2.Dtype
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., dtype: _Optional[_Union[_tensor_pb2.Dtype, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class DropVectorRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DropVectorResponse(_message.Message):
    __slots__ = ("dropped",)
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    dropped: bool
    def __init__(self, dropped: bool = ...) -> None: ...

class CompareRunsRequest(_message.Message):
    __slots__ = ("run_id", "other_run_id", "from_pos")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    OTHER_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_POS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    other_run_id: str
    from_pos: int
    def __init__(self, run_id: _Optional[str] = ..., other_run_id: _Optional[str] = ..., from_pos: _Optional[int] = ...) -> None: ...

class CompareRunsResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[RowComparison]
    def __init__(self, rows: _Optional[_Iterable[_Union[RowComparison, _Mapping]]] = ...) -> None: ...

class RowComparison(_message.Message):
    __slots__ = ("kl", "top_id", "top_string", "other_top_id", "other_top_string", "kl_by_pos")
    KL_FIELD_NUMBER: _ClassVar[int]
    TOP_ID_FIELD_NUMBER: _ClassVar[int]
    TOP_STRING_FIELD_NUMBER: _ClassVar[int]
    OTHER_TOP_ID_FIELD_NUMBER: _ClassVar[int]
    OTHER_TOP_STRING_FIELD_NUMBER: _ClassVar[int]
    KL_BY_POS_FIELD_NUMBER: _ClassVar[int]
    kl: float
    top_id: int
    top_string: str
    other_top_id: int
    other_top_string: str
    kl_by_pos: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, kl: _Optional[float] = ..., top_id: _Optional[int] = ..., top_string: _Optional[str] = ..., other_top_id: _Optional[int] = ..., other_top_string: _Optional[str] = ..., kl_by_pos: _Optional[_Iterable[float]] = ...) -> None: ...

class BatchSizeRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class BatchSizeResponse(_message.Message):
    __slots__ = ("batch_size",)
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    batch_size: int
    def __init__(self, batch_size: _Optional[int] = ...) -> None: ...

class TokensToStringsRequest(_message.Message):
    __slots__ = ("model", "token_ids", "model_digest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    model_digest: str
    def __init__(self, model: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., model_digest: _Optional[str] = ...) -> None: ...

class TokensToStringsResponse(_message.Message):
    __slots__ = ("strings",)
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    strings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, strings: _Optional[_Iterable[str]] = ...) -> None: ...

class TokenizeRequest(_message.Message):
    __slots__ = ("model", "text", "add_bos", "model_digest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ADD_BOS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    text: str
    add_bos: bool
    model_digest: str
    def __init__(self, model: _Optional[str] = ..., text: _Optional[str] = ..., add_bos: bool = ..., model_digest: _Optional[str] = ...) -> None: ...

class TokenizeResponse(_message.Message):
    __slots__ = ("token_ids", "token_strings")
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_STRINGS_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    token_strings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ..., token_strings: _Optional[_Iterable[str]] = ...) -> None: ...

class TokensRequest(_message.Message):
    __slots__ = ("run_id", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class LogitsRequest(_message.Message):
    __slots__ = ("run_id", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class UnembedRequest(_message.Message):
    __slots__ = ("model", "t", "normalize", "model_digest", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    T_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    t: _tensor_pb2.Tensor
    normalize: bool
    model_digest: str
    options: _tensor_pb2.TensorOptions
    def __init__(self, model: _Optional[str] = ..., t: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., normalize: bool = ..., model_digest: _Optional[str] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class TopTokensRequest(_message.Message):
    __slots__ = ("model", "t", "normalize", "model_digest", "k", "bottom_k")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    T_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_K_FIELD_NUMBER: _ClassVar[int]
    model: str
    t: _tensor_pb2.Tensor
    normalize: bool
    model_digest: str
    k: int
    bottom_k: int
    def __init__(self, model: _Optional[str] = ..., t: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., normalize: bool = ..., model_digest: _Optional[str] = ..., k: _Optional[int] = ..., bottom_k: _Optional[int] = ...) -> None: ...

class TopTokensResponse(_message.Message):
    __slots__ = ("top_ids", "top_logits", "bottom_ids", "bottom_logits", "logsumexp")
    TOP_IDS_FIELD_NUMBER: _ClassVar[int]
    TOP_LOGITS_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_IDS_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_LOGITS_FIELD_NUMBER: _ClassVar[int]
    LOGSUMEXP_FIELD_NUMBER: _ClassVar[int]
    top_ids: _containers.RepeatedScalarFieldContainer[int]
    top_logits: _containers.RepeatedScalarFieldContainer[float]
    bottom_ids: _containers.RepeatedScalarFieldContainer[int]
    bottom_logits: _containers.RepeatedScalarFieldContainer[float]
    logsumexp: float
    def __init__(self, top_ids: _Optional[_Iterable[int]] = ..., top_logits: _Optional[_Iterable[float]] = ..., bottom_ids: _Optional[_Iterable[int]] = ..., bottom_logits: _Optional[_Iterable[float]] = ..., logsumexp: _Optional[float] = ...) -> None: ...

class ResidualInRequest(_message.Message):
    __slots__ = ("run_id", "layer", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    layer: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., layer: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class ResidualAfterAttnRequest(_message.Message):
    __slots__ = ("run_id", "layer", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    layer: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., layer: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class ResidualOutRequest(_message.Message):
    __slots__ = ("run_id", "layer", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    layer: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., layer: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class FfnOutRequest(_message.Message):
    __slots__ = ("run_id", "layer", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    layer: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., layer: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class DecomposedFfnOutRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "pos", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    pos: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., pos: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class NeuronActivationsRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "pos", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    pos: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., pos: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class NeuronOutputRequest(_message.Message):
    __slots__ = ("model", "layer", "neuron", "model_digest", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NEURON_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    layer: int
    neuron: int
    model_digest: str
    options: _tensor_pb2.TensorOptions
    def __init__(self, model: _Optional[str] = ..., layer: _Optional[int] = ..., neuron: _Optional[int] = ..., model_digest: _Optional[str] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class AttentionMatrixRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "head", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    head: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., head: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class AttentionOutputRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "pos", "head", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    pos: int
    head: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., pos: _Optional[int] = ..., head: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class DecomposedAttnRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class NeuronOutputsRequest(_message.Message):
    __slots__ = ("model", "layer", "model_digest", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    layer: int
    model_digest: str
    options: _tensor_pb2.TensorOptions
    def __init__(self, model: _Optional[str] = ..., layer: _Optional[int] = ..., model_digest: _Optional[str] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class FetchItem(_message.Message):
    __slots__ = ("tokens", "logits", "residual_in", "residual_after_attn", "residual_out", "ffn_out", "decomposed_ffn_out", "neuron_activations", "attention_matrix", "attention_output", "decomposed_attn", "layer_lens", "token_logprobs", "attn_contributions", "contribution_edges", "neuron_contributions", "logit_terms", "logit_attribution", "source_attribution", "neuron_attribution", "attention_matrices", "head_scores", "value_weighted_norms", "features", "feature_activations", "contribution_edges_to")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_IN_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_AFTER_ATTN_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_OUT_FIELD_NUMBER: _ClassVar[int]
    FFN_OUT_FIELD_NUMBER: _ClassVar[int]
    DECOMPOSED_FFN_OUT_FIELD_NUMBER: _ClassVar[int]
    NEURON_ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_MATRIX_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DECOMPOSED_ATTN_FIELD_NUMBER: _ClassVar[int]
    LAYER_LENS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    ATTN_CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_EDGES_FIELD_NUMBER: _ClassVar[int]
    NEURON_CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    LOGIT_TERMS_FIELD_NUMBER: _ClassVar[int]
    LOGIT_ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    NEURON_ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_MATRICES_FIELD_NUMBER: _ClassVar[int]
    HEAD_SCORES_FIELD_NUMBER: _ClassVar[int]
    VALUE_WEIGHTED_NORMS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_EDGES_TO_FIELD_NUMBER: _ClassVar[int]
    tokens: TokensRequest
    logits: LogitsRequest
    residual_in: ResidualInRequest
    residual_after_attn: ResidualAfterAttnRequest
    residual_out: ResidualOutRequest
    ffn_out: FfnOutRequest
    decomposed_ffn_out: DecomposedFfnOutRequest
    neuron_activations: NeuronActivationsRequest
    attention_matrix: AttentionMatrixRequest
    attention_output: AttentionOutputRequest
    decomposed_attn: DecomposedAttnRequest
    layer_lens: _analysis_pb2.LayerLensRequest
    token_logprobs: _analysis_pb2.TokenLogprobsRequest
    attn_contributions: _analysis_pb2.AttnContributionsRequest
    contribution_edges: _analysis_pb2.ContributionEdgesRequest
    neuron_contributions: _analysis_pb2.NeuronContributionsRequest
    logit_terms: _analysis_pb2.LogitTermsRequest
    logit_attribution: _analysis_pb2.LogitAttributionRequest
    source_attribution: _analysis_pb2.SourceAttributionRequest
    neuron_attribution: _analysis_pb2.NeuronAttributionRequest
    attention_matrices: _analysis_pb2.AttentionMatricesRequest
    head_scores: _analysis_pb2.HeadScoresRequest
    value_weighted_norms: _analysis_pb2.ValueWeightedNormsRequest
    features: _features_pb2.FeaturesRequest
    feature_activations: _features_pb2.FeatureActivationsRequest
    contribution_edges_to: _analysis_pb2.ContributionEdgesToRequest
    def __init__(self, tokens: _Optional[_Union[TokensRequest, _Mapping]] = ..., logits: _Optional[_Union[LogitsRequest, _Mapping]] = ..., residual_in: _Optional[_Union[ResidualInRequest, _Mapping]] = ..., residual_after_attn: _Optional[_Union[ResidualAfterAttnRequest, _Mapping]] = ..., residual_out: _Optional[_Union[ResidualOutRequest, _Mapping]] = ..., ffn_out: _Optional[_Union[FfnOutRequest, _Mapping]] = ..., decomposed_ffn_out: _Optional[_Union[DecomposedFfnOutRequest, _Mapping]] = ..., neuron_activations: _Optional[_Union[NeuronActivationsRequest, _Mapping]] = ..., attention_matrix: _Optional[_Union[AttentionMatrixRequest, _Mapping]] = ..., attention_output: _Optional[_Union[AttentionOutputRequest, _Mapping]] = ..., decomposed_attn: _Optional[_Union[DecomposedAttnRequest, _Mapping]] = ..., layer_lens: _Optional[_Union[_analysis_pb2.LayerLensRequest, _Mapping]] = ..., token_logprobs: _Optional[_Union[_analysis_pb2.TokenLogprobsRequest, _Mapping]] = ..., attn_contributions: _Optional[_Union[_analysis_pb2.AttnContributionsRequest, _Mapping]] = ..., contribution_edges: _Optional[_Union[_analysis_pb2.ContributionEdgesRequest, _Mapping]] = ..., neuron_contributions: _Optional[_Union[_analysis_pb2.NeuronContributionsRequest, _Mapping]] = ..., logit_terms: _Optional[_Union[_analysis_pb2.LogitTermsRequest, _Mapping]] = ..., logit_attribution: _Optional[_Union[_analysis_pb2.LogitAttributionRequest, _Mapping]] = ..., source_attribution: _Optional[_Union[_analysis_pb2.SourceAttributionRequest, _Mapping]] = ..., neuron_attribution: _Optional[_Union[_analysis_pb2.NeuronAttributionRequest, _Mapping]] = ..., attention_matrices: _Optional[_Union[_analysis_pb2.AttentionMatricesRequest, _Mapping]] = ..., head_scores: _Optional[_Union[_analysis_pb2.HeadScoresRequest, _Mapping]] = ..., value_weighted_norms: _Optional[_Union[_analysis_pb2.ValueWeightedNormsRequest, _Mapping]] = ..., features: _Optional[_Union[_features_pb2.FeaturesRequest, _Mapping]] = ..., feature_activations: _Optional[_Union[_features_pb2.FeatureActivationsRequest, _Mapping]] = ..., contribution_edges_to: _Optional[_Union[_analysis_pb2.ContributionEdgesToRequest, _Mapping]] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("run_id", "items", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    items: _containers.RepeatedCompositeFieldContainer[FetchItem]
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[FetchItem, _Mapping]]] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("run_id", "items", "sweep")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    items: _containers.RepeatedCompositeFieldContainer[FetchItem]
    sweep: _sweeps_pb2.SweepRequest
    def __init__(self, run_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[FetchItem, _Mapping]]] = ..., sweep: _Optional[_Union[_sweeps_pb2.SweepRequest, _Mapping]] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("tensors", "total_bytes", "max_read_bytes", "sweep")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorHeader]
    total_bytes: int
    max_read_bytes: int
    sweep: _sweeps_pb2.SweepPlan
    def __init__(self, tensors: _Optional[_Iterable[_Union[_tensor_pb2.TensorHeader, _Mapping]]] = ..., total_bytes: _Optional[int] = ..., max_read_bytes: _Optional[int] = ..., sweep: _Optional[_Union[_sweeps_pb2.SweepPlan, _Mapping]] = ...) -> None: ...
