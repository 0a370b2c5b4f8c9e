"""Asking what reads would bring: each as the value itself and as it would travel, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transparent_llm.client import expecting
from transparent_llm.client.ask import Ask
from transparent_llm.client.plan import PlannedRead
from transparent_llm.client.reads import WHOLE, grouped
from transparent_llm.wire import requests, responses
from transparent_llm.wire.headers import Header
from transparent_llm.wire.requests import Item, Request


def request(run_id: str, asks: Sequence[Ask], items: Sequence[Item]) -> Request:
    """The message that asks. The items are the same reads as they would be sent."""
    return requests.plan(run_id, [*(ask.item() for ask in asks), *items])


def planned(data: bytes, asks: Sequence[Ask], items: Sequence[Item]) -> list[PlannedRead]:
    """What was answered: first what the values are, then as many times what would be sent.

    Raises:
        ProtocolError: it is not what was asked for.
    """
    expected = [expecting.of_run(ask) for ask in asks]
    expected += [expecting.of_run(ask, factored=item.form.factored) for ask, item in zip(asks, items, strict=True)]
    headers = responses.plan(data, expected)
    found = grouped([ask.name for ask in (*asks, *asks)], [(head.name, head) for head in headers])
    values, sent = found[: len(asks)], found[len(asks) :]
    return [
        _read(ask.name, value, _total_bytes(transfer)) for ask, value, transfer in zip(asks, values, sent, strict=True)
    ]


def _read(name: str, value: Mapping[str, Header], transfer_bytes: int) -> PlannedRead:
    first, *_ = value.values()
    parts = () if WHOLE in value else tuple(map(_part, value.values()))
    return PlannedRead(name, first.shape, first.dims, first.dtype, _total_bytes(value), transfer_bytes, parts)


def _part(head: Header) -> PlannedRead:
    return PlannedRead(head.name, head.shape, head.dims, head.dtype, head.total_bytes, head.total_bytes)


def _total_bytes(named: Mapping[str, Header]) -> int:
    return sum(head.total_bytes for head in named.values())
