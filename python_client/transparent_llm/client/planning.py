"""Asking what reads would bring: each as the value itself and as it would travel, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transparent_llm.client.plan import PlannedRead
from transparent_llm.client.reads import Read, grouped
from transparent_llm.selection import Selection
from transparent_llm.wire import dtypes, fetch, options
from transparent_llm.wire.expected import Answer, Expected
from transparent_llm.wire.methods import METHODS

_Items = Sequence[tuple[str, Any]]
"""Methods, and their requests as they would be sent."""


def request(run_id: str, reads: Sequence[Read], items: _Items, reading: Selection) -> Any:
    """The message that asks."""
    return fetch.plan_request(run_id, [*(_dense(read, reading) for read in reads), *items])


def planned(expected: Sequence[Expected], response: Any) -> list[PlannedRead]:
    """What was answered: first what the values are, then as many times what would be sent.

    Raises:
        ProtocolError: it is not what was asked for.
    """
    answer, place, headers = Answer(expected), None, list(response.tensors)
    for head in headers:
        place = answer.follow(place, head)
    answer.require_whole(place)
    count = len(expected) // 2
    transfers = grouped([each.name for each in expected[count:]], [(head.name, head) for head in headers[count:]])
    return [_read(head, transfer.values()) for head, transfer in zip(headers[:count], transfers, strict=True)]


def _read(head: Any, sent: Any) -> PlannedRead:
    transfer_bytes = sum(part.total_bytes for part in sent)
    dtype = dtypes.from_wire(head.dtype)
    return PlannedRead(head.name, tuple(head.shape), tuple(head.dims), dtype, head.total_bytes, transfer_bytes)


def _dense(read: Read, reading: Selection) -> tuple[str, Any]:
    name, indices = read
    item = METHODS[name].request("", *indices)
    options.fill(item, reading.of(METHODS[name].dims or ()), None if METHODS[name].integers else reading.dtype)
    return name, item
