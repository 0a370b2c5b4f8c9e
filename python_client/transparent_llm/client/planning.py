"""Asking what reads would bring: each as the value itself and as it would travel, in one call."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transparent_llm.client import expecting
from transparent_llm.client.ask import Ask
from transparent_llm.client.plan import PlannedRead
from transparent_llm.client.reads import grouped
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
    values, sent = headers[: len(asks)], headers[len(asks) :]
    transfers = grouped([ask.name for ask in asks], [(head.name, head) for head in sent])
    return [_read(head, transfer.values()) for head, transfer in zip(values, transfers, strict=True)]


def _read(head: Header, sent: Collection[Header]) -> PlannedRead:
    transfer_bytes = sum(part.total_bytes for part in sent)
    return PlannedRead(head.name, head.shape, head.dims, head.dtype, head.total_bytes, transfer_bytes)
