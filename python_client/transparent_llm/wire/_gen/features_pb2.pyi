from . import method_pb2 as _method_pb2
from . import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeaturesRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "sae", "positions", "k", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    sae: str
    positions: _containers.RepeatedScalarFieldContainer[int]
    k: int
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., sae: _Optional[str] = ..., positions: _Optional[_Iterable[int]] = ..., k: _Optional[int] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class FeatureActivationsRequest(_message.Message):
    __slots__ = ("run_id", "batch_i", "sae", "feature_ids", "positions", "options")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_I_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    FEATURE_IDS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    batch_i: int
    sae: str
    feature_ids: _containers.RepeatedScalarFieldContainer[int]
    positions: _containers.RepeatedScalarFieldContainer[int]
    options: _tensor_pb2.TensorOptions
    def __init__(self, run_id: _Optional[str] = ..., batch_i: _Optional[int] = ..., sae: _Optional[str] = ..., feature_ids: _Optional[_Iterable[int]] = ..., positions: _Optional[_Iterable[int]] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...
