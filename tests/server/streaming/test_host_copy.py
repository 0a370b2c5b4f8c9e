"""How pieces come from a GPU: checked against streams that only write down what is asked of them, and on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from transparent_llm_server.streaming import host_copy
from transparent_llm_server.streaming.host_copy import on_host

GPU = torch.device("cuda:0")
_empty = torch.empty
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; none is here")


class OnGpu(torch.Tensor):
    """Computes on the CPU and says that it is on a GPU."""

    asked: list[str]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    def contiguous(self, *_: Any) -> OnGpu:
        self.asked.append("read")
        return self

    def record_stream(self, stream: FakeStream) -> None:  # type: ignore[override]
        self.asked.append(f"memory kept for {stream.name}")


@dataclass
class FakeEvent:
    name: str
    log: list[str]

    def synchronize(self) -> None:
        self.log.append(f"waited for {self.name}")


@dataclass
class FakeStream:
    name: str
    log: list[str]

    def record_event(self) -> FakeEvent:
        return FakeEvent(f"all on {self.name}", self.log)

    def wait_event(self, event: FakeEvent) -> None:
        self.log.append(f"{self.name} goes after {event.name}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was asked of a GPU that is not there."""
    written: list[str] = []
    side, current = FakeStream("side", written), FakeStream("current", written)

    @contextmanager
    def within(stream: FakeStream | torch.device) -> Iterator[None]:
        yield

    def empty(*shape: Any, pin_memory: bool, **more: Any) -> torch.Tensor:
        written.append("pinned" if pin_memory else "not pinned")
        return _empty(*shape, **more)

    host_copy._side_stream.cache_clear()
    monkeypatch.setattr(torch.cuda, "device", within)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    monkeypatch.setattr(torch, "empty", empty)
    yield written
    host_copy._side_stream.cache_clear()


def pieces(count: int, log: list[str]) -> Iterator[torch.Tensor]:
    for number in range(count):
        log.append(f"piece {number}")
        piece = torch.full((3,), float(number)).as_subclass(OnGpu)
        piece.asked = log
        yield piece


STARTED = ["side goes after all on current", "read", "pinned", "memory kept for side"]


def test_a_piece_is_sent_when_its_copy_is_done_and_the_next_one_is_under_way(log: list[str]) -> None:
    parts = on_host(pieces(3, log))
    assert torch.equal(next(parts), torch.full((3,), 0.0))
    assert log == ["piece 0", *STARTED, "piece 1", *STARTED, "waited for all on side"]
    log.clear()
    assert torch.equal(next(parts), torch.full((3,), 1.0))
    assert log == ["piece 2", *STARTED, "waited for all on side"]
    log.clear()
    assert torch.equal(next(parts), torch.full((3,), 2.0))
    assert log == ["waited for all on side"]
    assert list(parts) == []


def test_all_that_comes_is_on_the_cpu(log: list[str]) -> None:
    assert [type(part) for part in on_host(pieces(2, log))] == [torch.Tensor] * 2


@needs_gpu
def test_pieces_of_a_gpu_arrive_as_they_were_when_they_were_given() -> None:
    """Each is computed in the same memory as the one before."""

    def computed() -> Iterator[torch.Tensor]:
        for number in range(8):
            yield torch.full((2**20,), float(number), device="cuda").reshape(2**10, 2**10).t()

    for number, part in enumerate(on_host(computed())):
        assert part.is_pinned()
        assert part.is_contiguous()
        assert torch.equal(part, torch.full((2**10, 2**10), float(number)))
