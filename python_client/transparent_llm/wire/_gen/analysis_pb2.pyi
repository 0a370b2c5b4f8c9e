from . import method_pb2 as _method_pb2
from . import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResidualPoint(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESIDUAL_POINT_UNSPECIFIED: _ClassVar[ResidualPoint]
    RESIDUAL_POINT_OUT: _ClassVar[ResidualPoint]
    RESIDUAL_POINT_IN: _ClassVar[ResidualPoint]
    RESIDUAL_POINT_AFTER_ATTN: _ClassVar[ResidualPoint]

class Normalize(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NORMALIZE_UNSPECIFIED: _ClassVar[Normalize]
    NORMALIZE_OWN: _ClassVar[Normalize]
    NORMALIZE_FROZEN: _ClassVar[Normalize]
    NORMALIZE_NONE: _ClassVar[Normalize]

class ContributionNorm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTRIBUTION_NORM_UNSPECIFIED: _ClassVar[ContributionNorm]
    CONTRIBUTION_NORM_L1: _ClassVar[ContributionNorm]
    CONTRIBUTION_NORM_L2: _ClassVar[ContributionNorm]

class HeadScoreKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEAD_SCORE_KIND_UNSPECIFIED: _ClassVar[HeadScoreKind]
    HEAD_SCORE_KIND_INDUCTION: _ClassVar[HeadScoreKind]
    HEAD_SCORE_KIND_PREVIOUS: _ClassVar[HeadScoreKind]
    HEAD_SCORE_KIND_DUPLICATE: _ClassVar[HeadScoreKind]
    HEAD_SCORE_KIND_FIRST: _ClassVar[HeadScoreKind]
    HEAD_SCORE_KIND_SELF: _ClassVar[HeadScoreKind]
    HEAD_SCORE_KIND_ENTROPY: _ClassVar[HeadScoreKind]
RESIDUAL_POINT_UNSPECIFIED: ResidualPoint
RESIDUAL_POINT_OUT: ResidualPoint
RESIDUAL_POINT_IN: ResidualPoint
RESIDUAL_POINT_AFTER_ATTN: ResidualPoint
NORMALIZE_UNSPECIFIED: Normalize
NORMALIZE_OWN: Normalize
NORMALIZE_FROZEN: Normalize
NORMALIZE_NONE: Normalize
CONTRIBUTION_NORM_UNSPECIFIED: ContributionNorm
CONTRIBUTION_NORM_L1: ContributionNorm
CONTRIBUTION_NORM_L2: ContributionNorm
HEAD_SCORE_KIND_UNSPECIFIED: HeadScoreKind
HEAD_SCORE_KIND_INDUCTION: HeadScoreKind
HEAD_SCORE_KIND_PREVIOUS: HeadScoreKind
HEAD_SCORE_KIND_DUPLICATE: HeadScoreKind
HEAD_SCORE_KIND_FIRST: HeadScoreKind
HEAD_SCORE_KIND_SELF: HeadScoreKind
HEAD_SCORE_KIND_ENTROPY: HeadScoreKind

class LayerLensRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "minus_layer", "point", "minus_point", "normalize", "positions", "k", "bottom_k", "token_ids", "with_kl", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    MINUS_LAYER_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    MINUS_POINT_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_K_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    WITH_KL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    minus_layer: int
    point: ResidualPoint
    minus_point: ResidualPoint
    normalize: Normalize
    positions: _containers.RepeatedScalarFieldContainer[int]
    k: int
    bottom_k: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    with_kl: bool
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., minus_layer: _Optional[int] = ..., point: _Optional[_Union[ResidualPoint, str]] = ..., minus_point: _Optional[_Union[ResidualPoint, str]] = ..., normalize: _Optional[_Union[Normalize, str]] = ..., positions: _Optional[_Iterable[int]] = ..., k: _Optional[int] = ..., bottom_k: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., with_kl: bool = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class TokenLogprobsRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class AttnContributionsRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "norm", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    norm: ContributionNorm
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., norm: _Optional[_Union[ContributionNorm, str]] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class ContributionEdgesRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "threshold", "renormalize", "norm", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    RENORMALIZE_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    threshold: float
    renormalize: bool
    norm: ContributionNorm
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., threshold: _Optional[float] = ..., renormalize: bool = ..., norm: _Optional[_Union[ContributionNorm, str]] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class ContributionEdgesToRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "targets", "threshold", "renormalize", "norm", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    RENORMALIZE_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    targets: _containers.RepeatedScalarFieldContainer[int]
    threshold: float
    renormalize: bool
    norm: ContributionNorm
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., targets: _Optional[_Iterable[int]] = ..., threshold: _Optional[float] = ..., renormalize: bool = ..., norm: _Optional[_Union[ContributionNorm, str]] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class NeuronContributionsRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "pos", "k", "norm", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    pos: int
    k: int
    norm: ContributionNorm
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., pos: _Optional[int] = ..., k: _Optional[int] = ..., norm: _Optional[_Union[ContributionNorm, str]] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class LogitTermsRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "pos", "token", "minus_token", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MINUS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    pos: int
    token: int
    minus_token: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., pos: _Optional[int] = ..., token: _Optional[int] = ..., minus_token: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class LogitAttributionRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "pos", "token", "minus_token", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MINUS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    pos: int
    token: int
    minus_token: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., pos: _Optional[int] = ..., token: _Optional[int] = ..., minus_token: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class SourceAttributionRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "pos", "token", "minus_token", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MINUS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    pos: int
    token: int
    minus_token: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., pos: _Optional[int] = ..., token: _Optional[int] = ..., minus_token: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class NeuronAttributionRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "pos", "token", "minus_token", "k", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MINUS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    pos: int
    token: int
    minus_token: int
    k: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., pos: _Optional[int] = ..., token: _Optional[int] = ..., minus_token: _Optional[int] = ..., k: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class AttentionMatricesRequest(_message.Message):
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

class HeadScoresRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "layer", "kind", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    layer: int
    kind: HeadScoreKind
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., layer: _Optional[int] = ..., kind: _Optional[_Union[HeadScoreKind, str]] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class ValueWeightedNormsRequest(_message.Message):
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
