from google.protobuf import descriptor_pb2 as _descriptor_pb2
from . import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
METHOD_FIELD_NUMBER: _ClassVar[int]
method: _descriptor.FieldDescriptor
INDEX_FIELD_NUMBER: _ClassVar[int]
index: _descriptor.FieldDescriptor
PARAMETER_FIELD_NUMBER: _ClassVar[int]
parameter: _descriptor.FieldDescriptor

class MethodSpec(_message.Message):
    __slots__ = ("dims", "dtype", "parts", "weights", "bulk", "analysis")
    DIMS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    BULK_FIELD_NUMBER: _ClassVar[int]
    ANALYSIS_FIELD_NUMBER: _ClassVar[int]
    dims: str
    dtype: _tensor_pb2.Dtype
    parts: _containers.RepeatedCompositeFieldContainer[PartSpec]
    weights: str
    bulk: bool
    analysis: bool
    def __init__(self, dims: _Optional[str] = ..., dtype: _Optional[_Union[_tensor_pb2.Dtype, str]] = ..., parts: _Optional[_Iterable[_Union[PartSpec, _Mapping]]] = ..., weights: _Optional[str] = ..., bulk: bool = ..., analysis: bool = ...) -> None: ...

class PartSpec(_message.Message):
    __slots__ = ("name", "dims", "dtype", "optional", "sparse")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIMS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dims: str
    dtype: _tensor_pb2.Dtype
    optional: bool
    sparse: bool
    def __init__(self, name: _Optional[str] = ..., dims: _Optional[str] = ..., dtype: _Optional[_Union[_tensor_pb2.Dtype, str]] = ..., optional: bool = ..., sparse: bool = ...) -> None: ...

class IndexSpec(_message.Message):
    __slots__ = ("axis", "optional")
    AXIS_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    axis: str
    optional: bool
    def __init__(self, axis: _Optional[str] = ..., optional: bool = ...) -> None: ...

class ParameterSpec(_message.Message):
    __slots__ = ("size_of", "all_if_empty")
    SIZE_OF_FIELD_NUMBER: _ClassVar[int]
    ALL_IF_EMPTY_FIELD_NUMBER: _ClassVar[int]
    size_of: str
    all_if_empty: bool
    def __init__(self, size_of: _Optional[str] = ..., all_if_empty: bool = ...) -> None: ...
