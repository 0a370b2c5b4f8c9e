"""THE agreement: contract, table, schema, servicer and both implementations say the same.

A new method is a line in each of them. These tests name the line that is missing, or that differs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from google.protobuf.descriptor import FieldDescriptor

from transparent_llm import RemoteTransparentLlm, TransparentLlm, contract
from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.methods import METHODS, SERVICE
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.rpc.servicer import TransparentLlmServicer

PROTO = Path(__file__).parents[2] / "protos/transparent_llm/v1/service.proto"
SCHEMA = service_pb2.DESCRIPTOR.services_by_name["TransparentLlmService"]
RPCS = {rpc.name: rpc for rpc in SCHEMA.methods}
RPCS_WITHOUT_A_METHOD = {
    "ServerInfo",
    "Dataset",
    "ReleaseRun",
    "Fetch",
    "NeuronOutputs",
    "HeadWeights",
    "CompositionScores",
    "CopyingScores",
    "Plan",
    "Sweep",
    "Gradients",
    "Generate",
    "Tokenize",
    "TopTokens",
    "CompareRuns",
    "KeepVector",
    "ListVectors",
    "DropVector",
}
"""About the server and about runs, or several values at once: no part of the contract."""

ANALYSIS_PROTOS = [PROTO.with_name(name) for name in ("analysis.proto", "features.proto")]
ABSTRACT = sorted(TransparentLlm.__abstractmethods__)
INDEX = {"int", "int | None"}
AXES = {"batch", "layer", "pos", "head", "d_ffn", "d_vocab"}
TENSOR_ROWS = [name for name, row in METHODS.items() if row.dims is not None]
ANALYSIS_ROWS = [name for name, row in METHODS.items() if row.is_analysis]


def parameters(name: str, owner: type = TransparentLlm) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(getattr(owner, name)).parameters.values() if p.name != "self"]


def takes_indices(name: str) -> bool:
    """Whether all arguments are indices, which travel under their own names; text and vectors have messages."""
    return all(p.annotation in INDEX for p in parameters(name))


INDEX_METHODS = [name for name in ABSTRACT if takes_indices(name)]


def require_same(left: str, names: Set[str], right: str, others: Set[str]) -> None:
    missing = [f"{name} is in {left}, not in {right}" for name in sorted(names - others)]
    missing += [f"{name} is in {right}, not in {left}" for name in sorted(others - names)]
    assert not missing, "; ".join(missing)


def require_row(name: str) -> None:
    assert name in METHODS, f"{name} of the contract has no row in METHODS"
    assert METHODS[name].rpc in RPCS, f"{name} has no RPC {METHODS[name].rpc} in service.proto"


def request_fields(name: str) -> list[str]:
    """What a request has beside the model or run that it is about, the digest of that model, and its options; in the
    order of their numbers."""
    fields = sorted(RPCS[METHODS[name].rpc].input_type.fields, key=lambda field: field.number)
    target = "run_id" if METHODS[name].of_run else "model"
    assert fields, f"{METHODS[name].rpc}Request has no field {target}"
    assert fields[0].name == target, f"{METHODS[name].rpc}Request begins with {fields[0].name}, not with {target}"
    return [field.name for field in fields[1:] if field.name not in ("model_digest", "options")]


def test_table_has_a_row_for_each_abstract_method() -> None:
    of_class = {name for name, row in METHODS.items() if row.of_class}
    require_same("TransparentLlm", TransparentLlm.__abstractmethods__, "METHODS", of_class)
    assert [key for key, row in METHODS.items() if row.name != key] == []


def test_schema_has_an_rpc_for_each_row() -> None:
    rows = {row.rpc for row in METHODS.values() if row.of_class}
    rows |= {METHODS[name].rpc for name in ANALYSIS_ROWS}
    require_same("METHODS", rows, "service.proto", RPCS.keys() - RPCS_WITHOUT_A_METHOD)
    require_same("the named exceptions", RPCS_WITHOUT_A_METHOD, "service.proto", RPCS_WITHOUT_A_METHOD & RPCS.keys())
    assert SCHEMA.full_name == SERVICE


def test_generated_code_is_that_of_the_schema() -> None:
    schema = set(re.findall(r"^  rpc (\w+)\(", PROTO.read_text(encoding="utf-8"), flags=re.MULTILINE))
    require_same("service.proto", schema, "service_pb2 (make gen)", RPCS.keys())


def test_servicer_answers_each_rpc() -> None:
    written = {name for name in vars(TransparentLlmServicer) if not name.startswith("_")}
    require_same("service.proto", RPCS.keys(), "TransparentLlmServicer", written)


@pytest.mark.parametrize("implementation", [RemoteTransparentLlm, TransformerLensTransparentLlm])
def test_implementations_have_the_methods_themselves(implementation: type[TransparentLlm]) -> None:
    classes = [each for each in implementation.__mro__ if each is not TransparentLlm]
    defined = {name for each in classes for name in vars(each)} & TransparentLlm.__abstractmethods__
    require_same("TransparentLlm", TransparentLlm.__abstractmethods__, implementation.__name__, defined)
    assert implementation.__abstractmethods__ == frozenset()


@pytest.mark.parametrize("name", ABSTRACT)
@pytest.mark.parametrize("implementation", [RemoteTransparentLlm, TransformerLensTransparentLlm])
def test_implementations_have_the_signature_of_the_contract(implementation: type, name: str) -> None:
    signature = inspect.signature(getattr(implementation, name))
    further = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY and not p.default]
    assert [p.name for p in further] == (["add_bos", "edits"] if name == "run" else [])
    signature = signature.replace(parameters=[p for p in signature.parameters.values() if p not in further])
    assert signature == inspect.signature(getattr(TransparentLlm, name))


def test_methods_with_other_arguments_than_indices() -> None:
    """They are named, so that a new method lands among those that are checked below."""
    assert sorted(set(ABSTRACT) - set(INDEX_METHODS)) == ["run", "tokens_to_strings", "unembed"]


@pytest.mark.parametrize("name", INDEX_METHODS)
def test_arguments_have_the_same_names_everywhere(name: str) -> None:
    require_row(name)
    arguments = [p.name for p in parameters(name)]
    assert list(METHODS[name].arguments) == arguments, f"METHODS[{name!r}].arguments differ from the contract"
    assert request_fields(name) == arguments, f"{METHODS[name].rpc}Request differs from the contract"


@pytest.mark.parametrize("name", INDEX_METHODS)
def test_arguments_are_optional_where_they_are_in_the_contract(name: str) -> None:
    require_row(name)
    fields = RPCS[METHODS[name].rpc].input_type.fields_by_name
    optional = {p.name for p in parameters(name) if p.annotation == "int | None"}
    assert {p.name for p in parameters(name) if p.default is None} == optional
    row = set(METHODS[name].optional)
    require_same("the optional arguments of the contract", optional, f"the optional arguments of {name}'s row", row)
    for argument in request_fields(name):  # presence is told for all of them, so that a forgotten index is no 0
        assert fields[argument].containing_oneof is not None, f"{argument} of {name} must be `optional` in the schema"
    assert {fields[argument].type for argument in request_fields(name)} <= {FieldDescriptor.TYPE_INT32}


def test_other_requests_have_the_fields_of_their_methods() -> None:
    assert request_fields("run") == ["sentences", "tokens", "add_bos", "edits"]  # one or the other: run, or run_tokens
    assert request_fields("tokens_to_strings") == ["token_ids"]
    assert request_fields("unembed") == [p.name for p in parameters("unembed")] == ["t", "normalize"]


def dims_of(annotation: str) -> tuple[str, ...] | None:
    """Of one tensor."""
    shape = re.fullmatch(r"\w+\[torch\.Tensor, '([^']*)'\](?: \| None)?", annotation)
    return None if shape is None else tuple(shape[1].split())


@pytest.mark.parametrize("name", ABSTRACT)
def test_dims_are_those_of_the_annotation(name: str) -> None:
    require_row(name)
    annotation = inspect.signature(getattr(TransparentLlm, name)).return_annotation
    several = getattr(contract, annotation, None)
    if not (isinstance(several, type) and issubclass(several, tuple)):
        dims = dims_of(annotation)
        assert METHODS[name].dims == dims, f"METHODS[{name!r}].dims differ from the contract's {annotation}"
        return
    fields = [(field, dims_of(of.__forward_arg__)) for field, of in several.__annotations__.items()]
    parts = [(part.name, part.dims) for part in METHODS[name].parts]
    assert METHODS[name].is_parts, f"METHODS[{name!r}] has dims or no parts, the contract says {annotation}"
    assert parts == fields, f"METHODS[{name!r}].parts differ from the contract's {annotation}"


@pytest.mark.parametrize("name", TENSOR_ROWS)
def test_indices_go_along_axes_that_are_known(name: str) -> None:
    axes = [METHODS[name].axis_of(argument) for argument in METHODS[name].arguments]
    require_same("the axes of " + name, set(axes), "those that indices go along", AXES & set(axes))


@pytest.mark.parametrize("name", TENSOR_ROWS)
def test_parts_are_named_once_and_their_weights_are_a_method(name: str) -> None:
    names = [part.name for part in METHODS[name].parts]
    assert len(set(names)) == len(names)
    assert METHODS[name].weights in {None, *METHODS}
    assert METHODS[name].weights is None or not METHODS[METHODS[name].weights].of_run


@pytest.mark.parametrize("name", TENSOR_ROWS)
def test_tensors_are_streamed_with_options(name: str) -> None:
    require_row(name)
    rpc = RPCS[METHODS[name].rpc]
    assert rpc.server_streaming, f"{rpc.name} gives a tensor, so it returns a stream"
    assert rpc.output_type is tensor_pb2.TensorChunk.DESCRIPTOR
    options = rpc.input_type.fields_by_name.get("options")
    assert options is not None, f"{rpc.input_type.name} has no `TensorOptions options = 15`"
    assert (options.number, options.message_type) == (15, tensor_pb2.TensorOptions.DESCRIPTOR)


def test_fetch_streams_what_each_read_of_a_run_would_stream() -> None:
    rpc, item = RPCS["Fetch"], service_pb2.FetchItem.DESCRIPTOR
    assert rpc.server_streaming
    assert rpc.output_type is tensor_pb2.TensorChunk.DESCRIPTOR
    assert {field.name for field in item.fields} == {name for name in TENSOR_ROWS if METHODS[name].of_run}
    assert all(field.message_type is RPCS[METHODS[field.name].rpc].input_type for field in item.fields)


def test_gradients_stream_tensors() -> None:
    rpc = RPCS["Gradients"]
    assert rpc.server_streaming
    assert rpc.output_type.name == "TensorChunk"
    assert "options" in rpc.input_type.fields_by_name


STREAMS_OF_NUMBERS = {"Sweep", "Generate"}
"""What each step or pass gives, as messages of their own."""


@pytest.mark.parametrize("name", sorted(STREAMS_OF_NUMBERS))
def test_what_comes_step_by_step_streams_messages_of_its_own(name: str) -> None:
    assert RPCS[name].server_streaming
    assert RPCS[name].output_type.name == f"{name}Response"


@pytest.mark.parametrize(
    "name", sorted(set(RPCS) - {METHODS[row].rpc for row in TENSOR_ROWS} - {"Fetch", "Gradients"} - STREAMS_OF_NUMBERS)
)
def test_everything_else_is_unary_without_options(name: str) -> None:
    rpc = RPCS[name]
    assert not rpc.server_streaming, f"{name} gives no tensor, so it returns one message"
    assert rpc.output_type.name == f"{name}Response"
    assert "options" not in rpc.input_type.fields_by_name


@pytest.mark.parametrize("name", RPCS)
def test_every_rpc_takes_one_message_of_its_name(name: str) -> None:
    assert not RPCS[name].client_streaming, f"{name} streams requests, which browsers cannot"
    assert RPCS[name].input_type.name == f"{name}Request"


@pytest.mark.parametrize("name", RPCS)
def test_servicer_yields_where_the_schema_streams(name: str) -> None:
    answer = get_type_hints(getattr(TransparentLlmServicer, name))["return"]
    assert (answer == Iterator[bytes]) == RPCS[name].server_streaming


def annotated(annotation: object) -> tuple[tuple[str, ...], torch.dtype]:
    """The axes and the type of a tensor, or of one that may be absent."""
    tensor = next(each for each in (*get_args(annotation), annotation) if each is not type(None))
    return tuple(tensor.dim_str.split()), torch.float32 if "float32" in tensor.dtypes else torch.int64


def test_each_analysis_is_in_the_table_and_computed() -> None:
    require_same("ANALYSES", ANALYSES.keys(), "service.proto", set(ANALYSIS_ROWS))


@pytest.mark.parametrize("name", ANALYSIS_ROWS)
def test_analyses_take_what_their_requests_have(name: str) -> None:
    row, function = METHODS[name], ANALYSES[name]
    taken = list(inspect.signature(function).parameters.values())[1:]
    assert list(row.argument_names) == request_fields(name) == [p.name for p in taken]
    for parameter in row.parameters:
        default = next(p.default for p in taken if p.name == parameter.name)
        assert parameter.checked(name, default) == parameter.default, parameter.name
    assert {p.name for p in taken[: len(row.arguments)] if p.default is None} == set(row.optional)


@pytest.mark.parametrize("name", ANALYSIS_ROWS)
def test_analyses_answer_what_the_table_says(name: str) -> None:
    row, result = METHODS[name], get_type_hints(ANALYSES[name])["return"]
    if not row.is_parts:
        dims, dtype = annotated(result)
        assert dims == row.dims
        assert row.dtype in (None, dtype)  # None: that of the model
        return
    fields = get_type_hints(result)
    assert list(fields) == [part.name for part in row.parts]
    for part in row.parts:
        assert annotated(fields[part.name]) == (part.dims, part.dtype), part.name
        assert (type(None) in get_args(fields[part.name])) == part.optional, part.name


def test_requests_of_analyses_stand_in_files_of_their_own() -> None:
    text = "".join(proto.read_text(encoding="utf-8") for proto in ANALYSIS_PROTOS)
    there = set(re.findall(r"^message (\w+)Request ", text, flags=re.MULTILINE))
    require_same("analysis.proto and features.proto", there, "the table", {METHODS[name].rpc for name in ANALYSIS_ROWS})
