from . import interventions_pb2 as _interventions_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MetricKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_KIND_UNSPECIFIED: _ClassVar[MetricKind]
    METRIC_KIND_LOGIT: _ClassVar[MetricKind]
    METRIC_KIND_LOGPROB: _ClassVar[MetricKind]
    METRIC_KIND_PROB: _ClassVar[MetricKind]
    METRIC_KIND_LOSS: _ClassVar[MetricKind]
    METRIC_KIND_KL: _ClassVar[MetricKind]
    METRIC_KIND_ENTROPY: _ClassVar[MetricKind]
    METRIC_KIND_PROJECTION: _ClassVar[MetricKind]
METRIC_KIND_UNSPECIFIED: MetricKind
METRIC_KIND_LOGIT: MetricKind
METRIC_KIND_LOGPROB: MetricKind
METRIC_KIND_PROB: MetricKind
METRIC_KIND_LOSS: MetricKind
METRIC_KIND_KL: MetricKind
METRIC_KIND_ENTROPY: MetricKind
METRIC_KIND_PROJECTION: MetricKind

class SweepMetric(_message.Message):
    __slots__ = ("kind", "token_ids", "minus_token_ids", "pos", "run_id", "site", "direction")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MINUS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    kind: MetricKind
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    minus_token_ids: _containers.RepeatedScalarFieldContainer[int]
    pos: int
    run_id: str
    site: _interventions_pb2.Site
    direction: _interventions_pb2.Vector
    def __init__(self, kind: _Optional[_Union[MetricKind, str]] = ..., token_ids: _Optional[_Iterable[int]] = ..., minus_token_ids: _Optional[_Iterable[int]] = ..., pos: _Optional[int] = ..., run_id: _Optional[str] = ..., site: _Optional[_Union[_interventions_pb2.Site, _Mapping]] = ..., direction: _Optional[_Union[_interventions_pb2.Vector, _Mapping]] = ...) -> None: ...

class SweepCell(_message.Message):
    __slots__ = ("layer", "head", "neurons", "positions", "source_row")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    NEURONS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ROW_FIELD_NUMBER: _ClassVar[int]
    layer: int
    head: int
    neurons: _containers.RepeatedScalarFieldContainer[int]
    positions: _containers.RepeatedScalarFieldContainer[int]
    source_row: int
    def __init__(self, layer: _Optional[int] = ..., head: _Optional[int] = ..., neurons: _Optional[_Iterable[int]] = ..., positions: _Optional[_Iterable[int]] = ..., source_row: _Optional[int] = ...) -> None: ...

class SweepRequest(_message.Message):
    __slots__ = ("run_id", "rows", "edits", "templates", "cells", "metrics")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    rows: _containers.RepeatedScalarFieldContainer[int]
    edits: _containers.RepeatedCompositeFieldContainer[_interventions_pb2.Intervention]
    templates: _containers.RepeatedCompositeFieldContainer[_interventions_pb2.Intervention]
    cells: _containers.RepeatedCompositeFieldContainer[SweepCell]
    metrics: _containers.RepeatedCompositeFieldContainer[SweepMetric]
    def __init__(self, run_id: _Optional[str] = ..., rows: _Optional[_Iterable[int]] = ..., edits: _Optional[_Iterable[_Union[_interventions_pb2.Intervention, _Mapping]]] = ..., templates: _Optional[_Iterable[_Union[_interventions_pb2.Intervention, _Mapping]]] = ..., cells: _Optional[_Iterable[_Union[SweepCell, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[SweepMetric, _Mapping]]] = ...) -> None: ...

class SweepResponse(_message.Message):
    __slots__ = ("baselines", "cells", "values")
    BASELINES_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    baselines: _containers.RepeatedScalarFieldContainer[float]
    cells: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, baselines: _Optional[_Iterable[float]] = ..., cells: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class SweepPlan(_message.Message):
    __slots__ = ("positions", "max_positions", "cells_at_once")
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    CELLS_AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    positions: int
    max_positions: int
    cells_at_once: int
    def __init__(self, positions: _Optional[int] = ..., max_positions: _Optional[int] = ..., cells_at_once: _Optional[int] = ...) -> None: ...
