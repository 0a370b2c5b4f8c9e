"""The table of methods agrees with the class and with the service, and carries indices unchanged."""

from __future__ import annotations

import inspect
import re
from typing import SupportsIndex

import numpy as np
import pytest
import torch

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import IndexOutOfRangeError
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.methods import METHODS, SERVICE, Method

OF_CLASS = [row for row in METHODS.values() if row.of_class]
RPCS = service_pb2.DESCRIPTOR.services_by_name["TransparentLlmService"].methods_by_name
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
with_indices = pytest.mark.parametrize(
    "method", [row for row in METHODS.values() if row.arguments], ids=lambda row: row.name
)
every_method_of_the_class = pytest.mark.parametrize("method", OF_CLASS, ids=lambda row: row.name)


def signature(method: Method) -> inspect.Signature:
    return inspect.signature(getattr(TransparentLlm, method.name))


def target_of(request: object, method: Method) -> str:
    return str(getattr(request, "run_id" if method.of_run else "model"))


# The table


def test_every_abstract_method_has_a_row() -> None:
    assert {row.name for row in OF_CLASS} == TransparentLlm.__abstractmethods__


def test_the_service_has_the_name_that_interceptors_look_for() -> None:
    assert service_pb2.DESCRIPTOR.services_by_name["TransparentLlmService"].full_name == SERVICE


@every_method
def test_the_service_has_the_method(method: Method) -> None:
    rpc = RPCS[method.rpc]
    assert method.request_type.DESCRIPTOR is rpc.input_type
    assert rpc.server_streaming == (method.dims is not None)
    assert not rpc.client_streaming


@every_method_of_the_class
def test_a_tensor_has_the_axes_that_the_class_announces(method: Method) -> None:
    announced = re.fullmatch(r"(?:Float|Int)\[torch\.Tensor, '(.*)'\]", signature(method).return_annotation)
    assert method.dims == (tuple(announced[1].split()) if announced else None)


@every_method_of_the_class
def test_arguments_are_those_of_the_class_in_their_order(method: Method) -> None:
    of_class = tuple(signature(method).parameters)[1:]
    assert method.arguments == (of_class if method.arguments else ())


@every_method
def test_a_tensor_request_takes_options(method: Method) -> None:
    assert ("options" in method.request_type.DESCRIPTOR.fields_by_name) == (method.dims is not None)


# Requests


@every_method
@pytest.mark.parametrize("first", [0, 5, -3, 2**31 - 9, -(2**31)])
def test_indices_arrive_as_they_were(method: Method, first: int) -> None:
    indices = tuple(range(first, first + len(method.arguments)))
    request = method.request_type.FromString(requests.of_method(method.name, "it", *indices).SerializeToString())
    defaults = tuple(parameter.default for parameter in method.parameters)
    assert method.arguments_of(request) == (*indices, *defaults)
    assert target_of(request, method) == "it"


@pytest.mark.parametrize("head", [None, 0, 3])
def test_an_absent_head_is_not_head_0(head: int | None) -> None:
    method = METHODS["attention_output"]
    request = method.request_type.FromString(requests.of_method(method.name, "run", 0, 1, 2, head).SerializeToString())
    assert method.arguments_of(request) == (0, 1, 2, head)


def test_options_travel_with_the_indices() -> None:
    options = tensor_pb2.TensorOptions(dtype=tensor_pb2.DTYPE_BF16, max_chunk_bytes=7)
    request = requests.of_method("residual_in", "run", 4, options=options)
    assert request == service_pb2.ResidualInRequest(run_id="run", layer=4, options=options)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 10**30], ids=str)
def test_an_index_beyond_int32_is_out_of_range(value: int) -> None:
    with pytest.raises(IndexOutOfRangeError) as refused:
        requests.of_method("attention_matrix", "run", 0, value, 0)
    assert refused.value.message == f"layer {value} is out of range: no axis is that long"
    assert refused.value.reason == "INDEX_OUT_OF_RANGE"
    assert refused.value.metadata == {"axis": "layer", "got": str(value)}


@pytest.mark.parametrize(
    "value",
    [torch.tensor(3), torch.tensor(3, dtype=torch.int8), np.int64(3), np.uint8(3), np.array(3)],
    ids=lambda value: f"{type(value).__name__}-{value.dtype}",
)
def test_whole_numbers_of_torch_and_numpy_are_indices(value: SupportsIndex) -> None:
    request = requests.of_method("residual_in", "run", value)  # type: ignore[arg-type]
    assert METHODS["residual_in"].arguments_of(request) == (3,)


@pytest.mark.parametrize("value", [1.0, "1", torch.tensor(1.0), np.float32(1)], ids=repr)
def test_nothing_else_is_an_index(value: object) -> None:
    with pytest.raises(TypeError):
        requests.of_method("residual_in", "run", value)  # type: ignore[arg-type]


@pytest.mark.parametrize("indices", [(), (1, 2)], ids=str)
def test_a_wrong_number_of_indices_is_a_mistake_in_the_code(indices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"argument 2 is (shorter|longer) than argument 1"):
        requests.of_method("residual_in", "run", *indices)
