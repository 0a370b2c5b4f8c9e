"""Every message that asks for something, built from plain values. Who gets one only passes it on."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from google.protobuf.message import Message

from transparent_llm.errors import IndexOutOfRangeError
from transparent_llm.interventions import Intervention
from transparent_llm.run_input import RunInput
from transparent_llm.wire import dtypes, health, interventions, ring, slices, tensors
from transparent_llm.wire._gen import admin_pb2, service_pb2, tensor_pb2
from transparent_llm.wire.form import Form
from transparent_llm.wire.methods import METHODS
from transparent_llm.wire.parameters import Argument

Request = Message
"""Without its fields: outside `wire` nobody sets or reads them."""


class Item(NamedTuple):
    """One value of a run."""

    name: str
    """Of the method."""

    arguments: tuple[Argument, ...]
    """Of the method, indices before parameters; None leaves an index out."""

    form: Form


def server_info() -> Request:
    """Asks what the server says about itself."""
    return service_pb2.ServerInfoRequest()


def stored_runs(owner: str, limit: int) -> Request:
    """Asks an administrator's question: which runs of an owner, or of all, are kept."""
    return admin_pb2.ListRunsRequest(owner=owner, limit=limit)


def owners() -> Request:
    """Asks who uses the server, and how much."""
    return admin_pb2.ListOwnersRequest()


def drain() -> Request:
    """Asks the server to end gracefully."""
    return admin_pb2.DrainRequest()


def is_serving() -> Request:
    """Asks the standard health service about the server as a whole."""
    return health.HealthCheckRequest(service="")


def model_info(model: str) -> Request:
    """Asks for the shape of a model; an empty name means the only one."""
    return service_pb2.ModelInfoRequest(model=model)


def run(
    run_input: RunInput, model: str, edits: Sequence[Intervention] = (), run_id_of: interventions.Named | None = None
) -> Request:
    """Asks for a run of this input, changed on its way.

    Raises:
        InvalidRequestError: too many edits, or a vector of a type that does not travel.
    """
    request = service_pb2.RunRequest(model=model)
    if run_id_of is not None:
        request.edits.extend(interventions.to_wire(edits, run_id_of))
    if run_input.sentences is not None:
        request.sentences.SetInParent()
        request.sentences.sentences.extend(run_input.sentences)
        if run_input.add_bos is not None:
            request.add_bos = run_input.add_bos
    else:
        request.tokens.SetInParent()
        for row in run_input.token_ids or ():
            request.tokens.sequences.add(token_ids=row)
    return request


def release(run_id: str) -> Request:
    """Says that a run is not needed any more."""
    return service_pb2.ReleaseRunRequest(run_id=run_id)


def compare_runs(run_id: str, other_run_id: str, from_pos: int | None = None) -> Request:
    """Asks what two runs differ in, at all positions from one on too where it is given."""
    return service_pb2.CompareRunsRequest(run_id=run_id, other_run_id=other_run_id, from_pos=from_pos)


def keep_vector(name: str, values: torch.Tensor) -> Request:
    """Asks to keep a vector under a name."""
    return service_pb2.KeepVectorRequest(name=name, vector=tensors.encode(values))


def dataset(name: str) -> Request:
    """Asks for the sentences of a data set."""
    return service_pb2.DatasetRequest(name=name)


def list_vectors() -> Request:
    """Asks which vectors are kept for the caller."""
    return service_pb2.ListVectorsRequest()


def drop_vector(name: str) -> Request:
    """Says that a kept vector is not needed any more."""
    return service_pb2.DropVectorRequest(name=name)


def tokens_to_strings(model: str, digest: str, token_ids: Sequence[int]) -> Request:
    """Asks for the text of tokens; the digest, if it is not empty, says which model is meant."""
    return service_pb2.TokensToStringsRequest(model=model, model_digest=digest, token_ids=token_ids)


def tokenize(model: str, digest: str, text: str, add_bos: bool | None) -> Request:
    """Asks for the token ids of a text."""
    request = service_pb2.TokenizeRequest(model=model, model_digest=digest, text=text)
    if add_bos is not None:
        request.add_bos = add_bos
    return request


def unembed(model: str, digest: str, t: torch.Tensor, *, normalize: bool, form: Form) -> Request:
    """Asks for the logits of a vector of the residual stream.

    Raises:
        InvalidRequestError: its dtype does not travel.
    """
    sent = tensors.encode(t)
    request = service_pb2.UnembedRequest(model=model, model_digest=digest, t=sent, normalize=normalize)
    _fill(request.options, form)
    return request


def top_tokens(
    model: str, digest: str, t: torch.Tensor, *, normalize: bool, k: int, bottom_k: int
) -> service_pb2.TopTokensRequest:
    """Asks for the tokens with the largest and the smallest logits of such a vector.

    Raises:
        InvalidRequestError: its dtype does not travel.
    """
    return service_pb2.TopTokensRequest(
        model=model, model_digest=digest, t=tensors.encode(t), normalize=normalize, k=k, bottom_k=bottom_k
    )


def neuron_output(model: str, digest: str, layer: int | None, neuron: int | None, form: Form) -> Request:
    """Asks for the output vector of one neuron; the server refuses one that is None.

    Raises:
        IndexOutOfRangeError: an index that no axis has.
    """
    request = service_pb2.NeuronOutputRequest(
        model=model, model_digest=digest, layer=_int32("layer", layer), neuron=_int32("neuron", neuron)
    )
    _fill(request.options, form)
    return request


def neuron_outputs(model: str, digest: str, layer: int, neurons: slice) -> Request:
    """Asks for the output vectors of some neurons of a layer."""
    request = service_pb2.NeuronOutputsRequest(model=model, model_digest=digest, layer=layer)
    _fill(request.options, Form((("d_ffn", neurons),)))
    return request


def of_weights(name: str, model: str, digest: str, *arguments: Argument, form: Form) -> Request:
    """Asks for one value of a model's weights.

    Raises:
        IndexOutOfRangeError: an index that no axis has.
        InvalidRequestError: a parameter that cannot be.
    """
    method = METHODS[name]
    n_indices = len(method.arguments)
    given = zip(method.parameters, arguments[n_indices:], strict=True)
    checked = (parameter.checked(name, argument) for parameter, argument in given)
    request: Any = of_method(name, model, *arguments[:n_indices], *checked)
    request.model_digest = digest
    _fill(request.options, form)
    return request  # type: ignore[no-any-return]  # of the method's type


def read(run_id: str, item: Item) -> Request:
    """Asks for one value of a run.

    Raises:
        IndexOutOfRangeError: an index that no axis has.
    """
    request = of_method(item.name, run_id, *item.arguments)
    _fill(_options(request), item.form)
    return request


def fetch(run_id: str, items: Iterable[Item]) -> Request:
    """Asks for many values of a run in one stream. Raises as `read` does."""
    return service_pb2.FetchRequest(run_id=run_id, items=_items(items))


def plan(run_id: str, items: Iterable[Item]) -> Request:
    """Asks what a `fetch` of the same would bring. Raises as `read` does."""
    return service_pb2.PlanRequest(run_id=run_id, items=_items(items))


def of_method(name: str, target: str, *arguments: Argument, options: tensor_pb2.TensorOptions | None = None) -> Request:
    """What a method with these arguments asks of `target`, a run id or the name of a model; parameters may be left out.

    Raises:
        IndexOutOfRangeError: an index that no axis has.
    """
    method = METHODS[name]
    indices = zip(method.arguments, arguments[: len(method.arguments)], strict=True)
    given = arguments[len(method.arguments) :]
    parameters = zip(method.parameters[: len(given)], given, strict=True)
    fields: dict[str, Any] = {axis: _int32(axis, index) for axis, index in indices}
    fields.update((parameter.name, parameter.field(argument)) for parameter, argument in parameters)
    request = method.request_type(**{"run_id" if method.of_run else "model": target}, **fields)
    if options is not None:
        _options(request).CopyFrom(options)
    return request


def resume(request: Request, received: int, etag: str) -> None:
    """Let a request, made once more, ask for what is left of its stream."""
    options = _options(request)
    options.resume_offset, options.etag = received, etag


def offer(request: Request, shared: ring.Offer | None) -> None:
    """Let a request name the shared memory that its answer may come through; None: only as messages."""
    options = _options(request)
    if shared is not None:
        options.shared_memory.CopyFrom(tensor_pb2.SharedMemory(**shared._asdict()))
    elif options.HasField("shared_memory"):
        options.ClearField("shared_memory")


def _items(items: Iterable[Item]) -> list[service_pb2.FetchItem]:
    fields = ({item.name: read("", item)} for item in items)
    return [service_pb2.FetchItem(**field) for field in fields]  # type: ignore[arg-type]  # each has its own message


def _options(request: Request) -> tensor_pb2.TensorOptions:
    """Of any request that is answered by a stream of tensors."""
    options: tensor_pb2.TensorOptions = request.options  # type: ignore[attr-defined]
    return options


def _fill(options: tensor_pb2.TensorOptions, form: Form) -> None:
    if form.axes:
        options.slices.extend(slices.to_wire(form.axes))
    if form.dtype is not None:
        options.dtype = dtypes.to_wire(form.dtype)
    if form.factored:
        options.encoding = tensor_pb2.ENCODING_FACTORED


def _int32(axis: str, value: Argument) -> int | None:
    """For a field; None leaves it out."""
    if value is None:
        return None
    index = operator.index(value)  # type: ignore[arg-type]  # indices are integers
    if not -(2**31) <= index < 2**31:
        raise IndexOutOfRangeError(
            f"{axis} {index} is out of range: no axis is that long", metadata={"axis": axis, "got": str(index)}
        )
    return index
