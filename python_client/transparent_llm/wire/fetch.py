"""Many tensors of one run in one request, as a server reads it."""

from __future__ import annotations

from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.form import Form, form_of
from transparent_llm.wire.methods import METHODS
from transparent_llm.wire.parameters import Argument

MOST_ITEMS = 4096
"""Of one request; a client that wants more asks several times."""

_READS = tuple(field.name for field in service_pb2.FetchItem.DESCRIPTOR.fields)
ReadsRequest = service_pb2.FetchRequest | service_pb2.PlanRequest
Read = tuple[str, tuple[Argument, ...], Form]
"""A method, its arguments, and the form of its value."""

FETCHED_METHODS = frozenset(_READS)
"""What can be asked for: all that reads a run and answers a tensor."""


def count(message: ReadsRequest) -> int:
    """How many items a request has."""
    return len(message.items)


def reads(message: ReadsRequest, start: int = 0, stop: int = MOST_ITEMS) -> list[Read]:
    """What the items of a request ask for, or those from `start` to before `stop`.

    Raises:
        TooLargeError: more than `MOST_ITEMS`, none of which was looked at.
        InvalidRequestError: no item, an empty one, one of another run, a missing index, an unknown dtype or
            encoding, or options where none belong.
    """
    rpc = message.DESCRIPTOR.name.removesuffix("Request")
    if not message.items:
        raise InvalidRequestError(f"{rpc} needs at least one item")
    if len(message.items) > MOST_ITEMS:
        raise TooLargeError(
            f"{rpc} takes at most {MOST_ITEMS} items at once, got {len(message.items)}; split it into several calls",
            metadata={"needed": str(len(message.items)), "allowed": str(MOST_ITEMS)},
        )
    options = message.options if isinstance(message, service_pb2.FetchRequest) else None
    if options is not None and (options.slices or options.dtype or options.encoding):
        raise InvalidRequestError("slices, dtype and encoding of a Fetch belong to its items, not to the stream")
    part = enumerate(message.items[start:stop], start)
    return [_read(f"item {index} of the {rpc}", index, item, message.run_id) for index, item in part]


def _read(what: str, index: int, item: service_pb2.FetchItem, run_id: str) -> Read:
    name = item.WhichOneof("read")
    if name is None:
        raise InvalidRequestError(
            f"{what} names nothing to read; known are {', '.join(_READS)}",
            metadata={"item": str(index)},
        )
    read = getattr(item, name)
    if read.run_id not in ("", run_id):
        raise InvalidRequestError(
            f"{what} names another run; one {what.split()[-1]} reads one run", metadata={"item": str(index)}
        )
    return name, METHODS[name].arguments_of(read), form_of(read.options)
