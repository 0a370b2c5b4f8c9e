from . import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SiteKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SITE_KIND_UNSPECIFIED: _ClassVar[SiteKind]
    SITE_KIND_RESIDUAL_IN: _ClassVar[SiteKind]
    SITE_KIND_RESIDUAL_AFTER_ATTN: _ClassVar[SiteKind]
    SITE_KIND_RESIDUAL_OUT: _ClassVar[SiteKind]
    SITE_KIND_ATTN_OUT: _ClassVar[SiteKind]
    SITE_KIND_FFN_OUT: _ClassVar[SiteKind]
    SITE_KIND_HEAD: _ClassVar[SiteKind]
    SITE_KIND_PATTERN: _ClassVar[SiteKind]
    SITE_KIND_NEURONS: _ClassVar[SiteKind]
    SITE_KIND_NORM_SCALE_ATTN: _ClassVar[SiteKind]
    SITE_KIND_NORM_SCALE_FFN: _ClassVar[SiteKind]
    SITE_KIND_NORM_SCALE_ATTN_POST: _ClassVar[SiteKind]
    SITE_KIND_NORM_SCALE_FFN_POST: _ClassVar[SiteKind]
    SITE_KIND_FINAL_NORM_SCALE: _ClassVar[SiteKind]
    SITE_KIND_QUERY: _ClassVar[SiteKind]
    SITE_KIND_KEY: _ClassVar[SiteKind]
    SITE_KIND_VALUE: _ClassVar[SiteKind]

class FeatureDirection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEATURE_DIRECTION_UNSPECIFIED: _ClassVar[FeatureDirection]
    FEATURE_DIRECTION_DECODER: _ClassVar[FeatureDirection]
    FEATURE_DIRECTION_ENCODER: _ClassVar[FeatureDirection]
SITE_KIND_UNSPECIFIED: SiteKind
SITE_KIND_RESIDUAL_IN: SiteKind
SITE_KIND_RESIDUAL_AFTER_ATTN: SiteKind
SITE_KIND_RESIDUAL_OUT: SiteKind
SITE_KIND_ATTN_OUT: SiteKind
SITE_KIND_FFN_OUT: SiteKind
SITE_KIND_HEAD: SiteKind
SITE_KIND_PATTERN: SiteKind
SITE_KIND_NEURONS: SiteKind
SITE_KIND_NORM_SCALE_ATTN: SiteKind
SITE_KIND_NORM_SCALE_FFN: SiteKind
SITE_KIND_NORM_SCALE_ATTN_POST: SiteKind
SITE_KIND_NORM_SCALE_FFN_POST: SiteKind
SITE_KIND_FINAL_NORM_SCALE: SiteKind
SITE_KIND_QUERY: SiteKind
SITE_KIND_KEY: SiteKind
SITE_KIND_VALUE: SiteKind
FEATURE_DIRECTION_UNSPECIFIED: FeatureDirection
FEATURE_DIRECTION_DECODER: FeatureDirection
FEATURE_DIRECTION_ENCODER: FeatureDirection

class Site(_message.Message):
    __slots__ = ("kind", "layer", "head", "neurons", "all_heads")
    KIND_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    NEURONS_FIELD_NUMBER: _ClassVar[int]
    ALL_HEADS_FIELD_NUMBER: _ClassVar[int]
    kind: SiteKind
    layer: int
    head: int
    neurons: _containers.RepeatedScalarFieldContainer[int]
    all_heads: bool
    def __init__(self, kind: _Optional[_Union[SiteKind, str]] = ..., layer: _Optional[int] = ..., head: _Optional[int] = ..., neurons: _Optional[_Iterable[int]] = ..., all_heads: bool = ...) -> None: ...

class Indices(_message.Message):
    __slots__ = ("indices",)
    INDICES_FIELD_NUMBER: _ClassVar[int]
    indices: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, indices: _Optional[_Iterable[int]] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("literal", "value", "difference", "unembedding", "neuron_output", "kept", "sae_feature")
    LITERAL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    UNEMBEDDING_FIELD_NUMBER: _ClassVar[int]
    NEURON_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    SAE_FEATURE_FIELD_NUMBER: _ClassVar[int]
    literal: _tensor_pb2.Tensor
    value: RunValue
    difference: VectorDifference
    unembedding: int
    neuron_output: NeuronVector
    kept: str
    sae_feature: SaeFeatureVector
    def __init__(self, literal: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., value: _Optional[_Union[RunValue, _Mapping]] = ..., difference: _Optional[_Union[VectorDifference, _Mapping]] = ..., unembedding: _Optional[int] = ..., neuron_output: _Optional[_Union[NeuronVector, _Mapping]] = ..., kept: _Optional[str] = ..., sae_feature: _Optional[_Union[SaeFeatureVector, _Mapping]] = ...) -> None: ...

class RunValue(_message.Message):
    __slots__ = ("run_id", "site", "row", "pos")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    site: Site
    row: int
    pos: int
    def __init__(self, run_id: _Optional[str] = ..., site: _Optional[_Union[Site, _Mapping]] = ..., row: _Optional[int] = ..., pos: _Optional[int] = ...) -> None: ...

class VectorDifference(_message.Message):
    __slots__ = ("minuend", "subtrahend")
    MINUEND_FIELD_NUMBER: _ClassVar[int]
    SUBTRAHEND_FIELD_NUMBER: _ClassVar[int]
    minuend: Vector
    subtrahend: Vector
    def __init__(self, minuend: _Optional[_Union[Vector, _Mapping]] = ..., subtrahend: _Optional[_Union[Vector, _Mapping]] = ...) -> None: ...

class NeuronVector(_message.Message):
    __slots__ = ("layer", "neuron")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NEURON_FIELD_NUMBER: _ClassVar[int]
    layer: int
    neuron: int
    def __init__(self, layer: _Optional[int] = ..., neuron: _Optional[int] = ...) -> None: ...

class SaeFeatureVector(_message.Message):
    __slots__ = ("sae", "feature", "direction")
    SAE_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    sae: str
    feature: int
    direction: FeatureDirection
    def __init__(self, sae: _Optional[str] = ..., feature: _Optional[int] = ..., direction: _Optional[_Union[FeatureDirection, str]] = ...) -> None: ...

class ScaleEdit(_message.Message):
    __slots__ = ("factor",)
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    factor: float
    def __init__(self, factor: _Optional[float] = ...) -> None: ...

class AddEdit(_message.Message):
    __slots__ = ("vector", "factor", "relative")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_FIELD_NUMBER: _ClassVar[int]
    vector: Vector
    factor: float
    relative: bool
    def __init__(self, vector: _Optional[_Union[Vector, _Mapping]] = ..., factor: _Optional[float] = ..., relative: bool = ...) -> None: ...

class SetEdit(_message.Message):
    __slots__ = ("vector",)
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    vector: Vector
    def __init__(self, vector: _Optional[_Union[Vector, _Mapping]] = ...) -> None: ...

class MeanEdit(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class PatchEdit(_message.Message):
    __slots__ = ("run_id", "source_rows", "source_positions")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ROWS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    source_rows: Indices
    source_positions: Indices
    def __init__(self, run_id: _Optional[str] = ..., source_rows: _Optional[_Union[Indices, _Mapping]] = ..., source_positions: _Optional[_Union[Indices, _Mapping]] = ...) -> None: ...

class ProjectEdit(_message.Message):
    __slots__ = ("vector", "factor")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    vector: Vector
    factor: float
    def __init__(self, vector: _Optional[_Union[Vector, _Mapping]] = ..., factor: _Optional[float] = ...) -> None: ...

class ClampEdit(_message.Message):
    __slots__ = ("vector", "least", "most")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    vector: Vector
    least: float
    most: float
    def __init__(self, vector: _Optional[_Union[Vector, _Mapping]] = ..., least: _Optional[float] = ..., most: _Optional[float] = ...) -> None: ...

class ClampFeatureEdit(_message.Message):
    __slots__ = ("sae", "feature", "least", "most")
    SAE_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    sae: str
    feature: int
    least: float
    most: float
    def __init__(self, sae: _Optional[str] = ..., feature: _Optional[int] = ..., least: _Optional[float] = ..., most: _Optional[float] = ...) -> None: ...

class SwapEdit(_message.Message):
    __slots__ = ("origin", "target")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    origin: Vector
    target: Vector
    def __init__(self, origin: _Optional[_Union[Vector, _Mapping]] = ..., target: _Optional[_Union[Vector, _Mapping]] = ...) -> None: ...

class NoiseEdit(_message.Message):
    __slots__ = ("sd", "seed")
    SD_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    sd: float
    seed: int
    def __init__(self, sd: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class FreezeEdit(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class Intervention(_message.Message):
    __slots__ = ("site", "all_positions", "last_position", "chosen_positions", "all_rows", "chosen_rows", "scale", "add", "set", "mean", "patch", "project", "clamp", "swap", "noise", "freeze", "clamp_feature")
    SITE_FIELD_NUMBER: _ClassVar[int]
    ALL_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_POSITION_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    ALL_ROWS_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_ROWS_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    CLAMP_FIELD_NUMBER: _ClassVar[int]
    SWAP_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    FREEZE_FIELD_NUMBER: _ClassVar[int]
    CLAMP_FEATURE_FIELD_NUMBER: _ClassVar[int]
    site: Site
    all_positions: bool
    last_position: bool
    chosen_positions: Indices
    all_rows: bool
    chosen_rows: Indices
    scale: ScaleEdit
    add: AddEdit
    set: SetEdit
    mean: MeanEdit
    patch: PatchEdit
    project: ProjectEdit
    clamp: ClampEdit
    swap: SwapEdit
    noise: NoiseEdit
    freeze: FreezeEdit
    clamp_feature: ClampFeatureEdit
    def __init__(self, site: _Optional[_Union[Site, _Mapping]] = ..., all_positions: bool = ..., last_position: bool = ..., chosen_positions: _Optional[_Union[Indices, _Mapping]] = ..., all_rows: bool = ..., chosen_rows: _Optional[_Union[Indices, _Mapping]] = ..., scale: _Optional[_Union[ScaleEdit, _Mapping]] = ..., add: _Optional[_Union[AddEdit, _Mapping]] = ..., set: _Optional[_Union[SetEdit, _Mapping]] = ..., mean: _Optional[_Union[MeanEdit, _Mapping]] = ..., patch: _Optional[_Union[PatchEdit, _Mapping]] = ..., project: _Optional[_Union[ProjectEdit, _Mapping]] = ..., clamp: _Optional[_Union[ClampEdit, _Mapping]] = ..., swap: _Optional[_Union[SwapEdit, _Mapping]] = ..., noise: _Optional[_Union[NoiseEdit, _Mapping]] = ..., freeze: _Optional[_Union[FreezeEdit, _Mapping]] = ..., clamp_feature: _Optional[_Union[ClampFeatureEdit, _Mapping]] = ...) -> None: ...

class EditEffect(_message.Message):
    __slots__ = ("edit", "selected", "changed", "delta_norm", "norm", "max_delta")
    EDIT_FIELD_NUMBER: _ClassVar[int]
    SELECTED_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    DELTA_NORM_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    MAX_DELTA_FIELD_NUMBER: _ClassVar[int]
    edit: str
    selected: int
    changed: int
    delta_norm: float
    norm: float
    max_delta: float
    def __init__(self, edit: _Optional[str] = ..., selected: _Optional[int] = ..., changed: _Optional[int] = ..., delta_norm: _Optional[float] = ..., norm: _Optional[float] = ..., max_delta: _Optional[float] = ...) -> None: ...
