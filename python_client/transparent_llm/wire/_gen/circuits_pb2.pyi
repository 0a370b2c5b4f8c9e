from . import method_pb2 as _method_pb2
from . import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CompositionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPOSITION_KIND_UNSPECIFIED: _ClassVar[CompositionKind]
    COMPOSITION_KIND_Q: _ClassVar[CompositionKind]
    COMPOSITION_KIND_K: _ClassVar[CompositionKind]
    COMPOSITION_KIND_V: _ClassVar[CompositionKind]

class HeadCircuit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEAD_CIRCUIT_UNSPECIFIED: _ClassVar[HeadCircuit]
    HEAD_CIRCUIT_OV: _ClassVar[HeadCircuit]
    HEAD_CIRCUIT_QK: _ClassVar[HeadCircuit]
COMPOSITION_KIND_UNSPECIFIED: CompositionKind
COMPOSITION_KIND_Q: CompositionKind
COMPOSITION_KIND_K: CompositionKind
COMPOSITION_KIND_V: CompositionKind
HEAD_CIRCUIT_UNSPECIFIED: HeadCircuit
HEAD_CIRCUIT_OV: HeadCircuit
HEAD_CIRCUIT_QK: HeadCircuit

class HeadWeightsRequest(_message.Message):
    __slots__ = ("model", "layer", "head", "model_digest", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    layer: int
    head: int
    model_digest: str
    options: _tensor_pb2.TensorOptions
    def __init__(self, model: _Optional[str] = ..., layer: _Optional[int] = ..., head: _Optional[int] = ..., model_digest: _Optional[str] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class CompositionScoresRequest(_message.Message):
    __slots__ = ("model", "kind", "model_digest", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    kind: CompositionKind
    model_digest: str
    options: _tensor_pb2.TensorOptions
    def __init__(self, model: _Optional[str] = ..., kind: _Optional[_Union[CompositionKind, str]] = ..., model_digest: _Optional[str] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...

class CopyingScoresRequest(_message.Message):
    __slots__ = ("model", "model_digest", "circuit", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_digest: str
    circuit: HeadCircuit
    options: _tensor_pb2.TensorOptions
    def __init__(self, model: _Optional[str] = ..., model_digest: _Optional[str] = ..., circuit: _Optional[_Union[HeadCircuit, str]] = ..., options: _Optional[_Union[_tensor_pb2.TensorOptions, _Mapping]] = ...) -> None: ...
