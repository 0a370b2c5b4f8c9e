from . import interventions_pb2 as _interventions_pb2
from . import sweeps_pb2 as _sweeps_pb2
from . import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GradientForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRADIENT_FORM_UNSPECIFIED: _ClassVar[GradientForm]
    GRADIENT_FORM_GRADIENT: _ClassVar[GradientForm]
    GRADIENT_FORM_TIMES_ACTIVATION: _ClassVar[GradientForm]
    GRADIENT_FORM_TIMES_DIFFERENCE: _ClassVar[GradientForm]
    GRADIENT_FORM_NORM: _ClassVar[GradientForm]

class FrozenPart(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FROZEN_PART_UNSPECIFIED: _ClassVar[FrozenPart]
    FROZEN_PART_PATTERNS: _ClassVar[FrozenPart]
    FROZEN_PART_NORM_SCALES: _ClassVar[FrozenPart]
    FROZEN_PART_ATTENTION: _ClassVar[FrozenPart]
    FROZEN_PART_NEURONS: _ClassVar[FrozenPart]
GRADIENT_FORM_UNSPECIFIED: GradientForm
GRADIENT_FORM_GRADIENT: GradientForm
GRADIENT_FORM_TIMES_ACTIVATION: GradientForm
GRADIENT_FORM_TIMES_DIFFERENCE: GradientForm
GRADIENT_FORM_NORM: GradientForm
FROZEN_PART_UNSPECIFIED: FrozenPart
FROZEN_PART_PATTERNS: FrozenPart
FROZEN_PART_NORM_SCALES: FrozenPart
FROZEN_PART_ATTENTION: FrozenPart
FROZEN_PART_NEURONS: FrozenPart

class GradientSite(_message.Message):
    __slots__ = ("site", "form", "run_id", "source_rows")
    SITE_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ROWS_FIELD_NUMBER: _ClassVar[int]
    site: _interventions_pb2.Site
    form: GradientForm
    run_id: str
    source_rows: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, site: _Optional[_Union[_interventions_pb2.Site, _Mapping]] = ..., form: _Optional[_Union[GradientForm, str]] = ..., run_id: _Optional[str] = ..., source_rows: _Optional[_Iterable[int]] = ...) -> None: ...

class GradientPath(_message.Message):
    __slots__ = ("zero", "token_id", "run_id", "steps", "site")
    ZERO_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    zero: bool
    token_id: int
    run_id: str
    steps: int
    site: _interventions_pb2.Site
    def __init__(self, zero: bool = ..., token_id: _Optional[int] = ..., run_id: _Optional[str] = ..., steps: _Optional[int] = ..., site: _Optional[_Union[_interventions_pb2.Site, _Mapping]] = ...) -> None: ...

class GradientEdges(_message.Message):
    __slots__ = ("run_id", "source_rows", "steps")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ROWS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    source_rows: _containers.RepeatedScalarFieldContainer[int]
    steps: int
    def __init__(self, run_id: _Optional[str] = ..., source_rows: _Optional[_Iterable[int]] = ..., steps: _Optional[int] = ...) -> None: ...

class GradientsRequest(_message.Message):
    __slots__ = ("run_id", "rows", "metric", "sites", "frozen", "path", "options", "edits", "edges")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    rows: _containers.RepeatedScalarFieldContainer[int]
    metric: _sweeps_pb2.SweepMetric
    sites: _containers.RepeatedCompositeFieldContainer[GradientSite]
    frozen: _containers.RepeatedScalarFieldContainer[FrozenPart]
    path: GradientPath
    options: _tensor_pb2.TensorOptions
    edits: _containers.RepeatedCompositeFieldContainer[_interventions_pb2.Intervention]
    edges: GradientEdges
    def __init__(self, run_id: _Optional[str] = ..., rows: _Optional[_Iterable[int]] = ..., metric: _Optional[_Union[_sweeps_pb2.SweepMetric, _Mapping]] = ..., sites: _Optional[_Iterable[_Union[GradientSite, _Mapping]]] = ..., frozen: _Optional[_Iterable[_Union[FrozenPart, str]]] = ..., path: _Optional[_Union[GradientPath, _Mapping]] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ..., edits: _Optional[_Iterable[_Union[_interventions_pb2.Intervention, _Mapping]]] = ..., edges: _Optional[_Union[GradientEdges, _Mapping]] = ...) -> None: ...
