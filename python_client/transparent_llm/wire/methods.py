"""The table: how each method of `TransparentLlm` maps to the wire, read from the options of service.proto. Client and
servicer both work from it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from google.protobuf.message import Message

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire import dtypes
from transparent_llm.wire._gen import analysis_pb2, circuits_pb2, features_pb2, method_pb2, service_pb2
from transparent_llm.wire.parameters import Argument, Parameter, parameter_of

SERVICE = "transparent_llm.v1.TransparentLlmService"
ADMIN_SERVICE = "transparent_llm.v1.TransparentLlmAdminService"
RUN_KEY_HEADER = "x-transparent-llm-run-key"
"""Request metadata: a hint for proxies, the same for a run and all reads of it."""

QUEUE_POSITION_HEADER = "x-transparent-llm-queue-position"
"""Request metadata of `Run`, with any value: whoever sends it is told how many runs come before its own, in initial
metadata of the same name, as soon as it waits. Where none does there is none."""

_REQUESTS = (service_pb2, analysis_pb2, circuits_pb2, features_pb2)
"""Where their messages are."""

ROWS = "n"
"""The axis that comes before those of a method where it was asked of several vectors at once: of `unembed`."""


@dataclass(frozen=True)
class Part:
    """One tensor of several that are a value together, or a factor of one."""

    name: str
    dims: tuple[str, ...]
    dtype: torch.dtype | None = None
    """None: that of the value."""

    optional: bool = False
    """Whether it may be absent. Then it can also be a scalar, if it is floating."""

    sparse: bool = False
    """Whether its first axis may be shorter than that axis is: of what is 0 nothing comes."""


@dataclass(frozen=True)
class Method:
    """One row: a method of the class and the RPC that moves it."""

    name: str
    """In the class: `residual_in`."""

    arguments: tuple[str, ...] = ()
    """Index arguments, in the order of the class and under the names of the request."""

    dims: tuple[str, ...] | None = None
    """Names of the result's axes; None for a unary call. Empty for a scalar, and for one that is its parts."""

    optional: tuple[str, ...] = ()
    """Those of the arguments that may be left out."""

    of_run: bool = True
    """Whether it reads a run, or the model alone."""

    of_class: bool = True
    """Whether it is a method of the class, or something that clients or servers make of them."""

    is_analysis: bool = False
    """Whether it is computed of the values of others."""

    dtype: torch.dtype | None = None
    """Element type; None: a floating one, that of the model or the one that was asked for."""

    parts: tuple[Part, ...] = ()
    """The tensors that it comes as, in order: the factors of a value, or without dims the value itself."""

    weights: str | None = None
    """The method whose value is a factor too, beside the parts. With slices such a value comes whole."""

    axes: tuple[str, ...] = ()
    """The axis that each of the arguments goes along."""

    parameters: tuple[Parameter, ...] = ()
    """The arguments that are no indices and come after them."""

    @property
    def integers(self) -> bool:
        """Whether its elements have no floating type, so that none can be asked for."""
        return self.dtype is not None and not self.dtype.is_floating_point

    @property
    def is_parts(self) -> bool:
        """Whether its value is several tensors, which always come."""
        return bool(self.parts) and not self.dims

    @cached_property
    def value_dims(self) -> tuple[str, ...]:
        """Names of the axes of its value: those of all its tensors, if that is several."""
        if not self.is_parts:
            return self.dims or ()
        return tuple(dict.fromkeys(axis for part in self.parts for axis in part.dims))

    @cached_property
    def result_dims(self) -> tuple[tuple[str, ...], ...]:
        """Names of the axes of each tensor that it returns."""
        return tuple(part.dims for part in self.parts) if self.is_parts else (self.value_dims,)

    def dims_of(self, n_axes: int) -> tuple[str, ...]:
        """Names of the axes of a value with so many: one that is asked of `n` vectors at once has an axis more."""
        dims = self.dims or ()
        return (ROWS, *dims) if n_axes == len(dims) + 1 else dims

    def begins_with(self, part: str) -> bool:
        """Whether this is the first of its parts."""
        return bool(self.parts) and self.parts[0].name == part

    def can_be(self, parts: Collection[str]) -> bool:
        """Whether no part is missing among those of these names."""
        return all(part.optional or part.name in parts for part in self.parts)

    def axis_of(self, argument: str) -> str:
        """The axis that an index goes along: "batch" of `batch_i`."""
        return self.axes[self.arguments.index(argument)]

    @property
    def rpc(self) -> str:
        """In the service: `ResidualIn`."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def request_type(self) -> type[Message]:
        """The generated request message."""
        name = f"{self.rpc}Request"
        request: type[Message] = next(getattr(file, name) for file in _REQUESTS if hasattr(file, name))
        return request

    @property
    def argument_names(self) -> tuple[str, ...]:
        """Of all that it takes: indices, then parameters."""
        return (*self.arguments, *(parameter.name for parameter in self.parameters))

    def lengths(self, arguments: Sequence[Argument]) -> dict[str, int]:
        """The axes of the value whose length the parameters among these arguments say."""
        given = zip(self.parameters, arguments[len(self.arguments) :], strict=True)
        found = {each.size_of: each.size(argument) for each, argument in given if each.size_of is not None}
        return {axis: size for axis, size in found.items() if size is not None}

    def arguments_of(self, request: Any) -> tuple[Argument, ...]:
        """The arguments in a request, in the order of the class; None for an optional index that is absent.

        Raises:
            InvalidRequestError: an index that is not optional is absent, or a parameter is not what it can be.
            TooLargeError: a parameter is a list that is too long.
        """
        missing = [name for name in self.arguments if not request.HasField(name) and name not in self.optional]
        if missing:
            raise InvalidRequestError(
                f"{self.rpc} needs {', '.join(missing)}; an index has no default",
                reason="MISSING_ARGUMENT",
                metadata={"axis": missing[0]},
            )
        indices = (getattr(request, name) if request.HasField(name) else None for name in self.arguments)
        return (*indices, *(parameter.read(request) for parameter in self.parameters))


def _of_rpc(rpc: Any) -> Method:
    """The row that stands at an RPC and at the indices of its request."""
    spec, fields = _option(rpc, method_pb2.method), rpc.input_type.fields
    indices = {field.name: index for field in fields if (index := _option(field, method_pb2.index)) is not None}
    return Method(
        _snake_case(rpc.name),
        tuple(indices),
        _axes(spec.dims) if rpc.server_streaming else None,
        optional=tuple(name for name, index in indices.items() if index.optional),
        of_run="run_id" in rpc.input_type.fields_by_name,
        of_class=not spec.bulk and not spec.analysis,
        is_analysis=spec.analysis,
        dtype=_dtype(spec),
        parts=tuple(
            Part(part.name, _axes(part.dims), _dtype(part), optional=part.optional, sparse=part.sparse)
            for part in spec.parts
        ),
        weights=spec.weights or None,
        axes=tuple(index.axis for index in indices.values()),
        parameters=tuple(
            parameter_of(field, spec.size_of, all_if_empty=spec.all_if_empty)
            for field in fields
            if (spec := _option(field, method_pb2.parameter)) is not None
        ),
    )


def _option(described: Any, extension: Any) -> Any:
    """None where there is none."""
    options = described.GetOptions()
    return options.Extensions[extension] if options.HasExtension(extension) else None


def _snake_case(rpc: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower()


def _axes(dims: str) -> tuple[str, ...]:
    return tuple(dims.split())


def _dtype(spec: Any) -> torch.dtype | None:
    return dtypes.TORCH_BY_WIRE[spec.dtype] if spec.dtype else None


_RPCS = service_pb2.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]]
METHODS: dict[str, Method] = {
    method.name: method
    for method in (_of_rpc(rpc) for rpc in _RPCS.methods if _option(rpc, method_pb2.method) is not None)
}
