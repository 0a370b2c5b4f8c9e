"""Many tensors of one run in one request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.methods import METHODS

_READS = tuple(field.name for field in service_pb2.FetchItem.DESCRIPTOR.fields)
FETCHED_METHODS = frozenset(_READS)
"""What can be asked for: all that reads a run and answers a tensor."""


def request(run_id: str, items: Iterable[tuple[str, Any]]) -> service_pb2.FetchRequest:
    """The message that asks for some tensors: method names and the requests that would bring each alone."""
    return service_pb2.FetchRequest(
        run_id=run_id, items=[service_pb2.FetchItem(**{name: item}) for name, item in items]
    )


def reads(message: service_pb2.FetchRequest) -> list[tuple[str, tuple[int | None, ...], Any]]:
    """(method, indices, options) of each item of a request.

    Raises:
        InvalidRequestError: no item, an empty one, one of another run, a missing index, or options where none belong.
    """
    if not message.items:
        raise InvalidRequestError("Fetch needs at least one item")
    options = message.options
    if options.slices or options.dtype or options.encoding:
        raise InvalidRequestError("slices, dtype and encoding of a Fetch belong to its items, not to the stream")
    return [_read(index, item, message.run_id) for index, item in enumerate(message.items)]


def _read(index: int, item: service_pb2.FetchItem, run_id: str) -> tuple[str, tuple[int | None, ...], Any]:
    name = item.WhichOneof("read")
    if name is None:
        raise InvalidRequestError(
            f"item {index} of the Fetch names nothing to read; known are {', '.join(_READS)}",
            metadata={"item": str(index)},
        )
    read = getattr(item, name)
    if read.run_id not in ("", run_id):
        raise InvalidRequestError(
            f"item {index} of the Fetch names another run; one Fetch reads one run", metadata={"item": str(index)}
        )
    return name, METHODS[name].indices(read), read.options
