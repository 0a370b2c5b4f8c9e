"""What a server does otherwise where a GPU computes: which calls it makes of torch, on machines that have none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from transparent_llm.errors import TooLargeError
from transparent_llm_server.events import Wait, WorkEvents
from transparent_llm_server.models.loading import memory
from transparent_llm_server.models.loading.memory import require_memory
from transparent_llm_server.scheduling.device_errors import device_is_lost
from transparent_llm_server.telemetry.device_memory import device_memory

BROKEN = RuntimeError("CUDA error: device-side assert triggered")


class Listener:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def waited(self, wait: Wait, seconds: float) -> None:
        self._log.append(f"{wait.kind} waited {seconds}")

    def ran(self, model: str, waits: Sequence[Wait], seconds: float) -> None:
        assert seconds >= 0
        self._log.append(f"{model} ran for {len(waits)}")


@pytest.mark.parametrize("is_measured", [True, False])
def test_the_end_of_a_pass_is_waited_for_where_somebody_measures(
    is_measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(f"{device} is done"))
    with WorkEvents([Listener(log)] if is_measured else []).forward("tiny", "cuda:0, cpu, cuda:1", []):
        log.append("launched")
    assert log == ["launched", *(["cuda:0 is done", "cuda:1 is done", "tiny ran for 0"] if is_measured else [])]


def test_a_model_that_the_host_has_room_for_is_refused_where_the_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000) if device.index == 0 else None)
    monkeypatch.setattr(memory, "_free_on_host", lambda: 2000)
    require_memory(1000, 1000, "cuda:0", "model")  # what passes is on the host
    with pytest.raises(TooLargeError, match="'model' needs 1001 bytes of memory of cuda:0 to be loaded, 1000 are free"):
        require_memory(1001, 0, "cuda:0", "model")


@pytest.mark.parametrize("answers", [True, False])
def test_a_device_that_still_answers_is_not_lost(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize() -> None:
        if not answers:
            raise BROKEN

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch, "ones", lambda n, device: torch.full((n,), 1.0, device=device.replace("cuda", "cpu")))
    assert device_is_lost(BROKEN) is not answers


def test_a_lost_gpu_leaves_the_others_their_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def free_and_total(device: str) -> tuple[int, int]:
        if device == "cuda:0":
            raise BROKEN
        return 300, 1000

    monkeypatch.setattr(torch.cuda, "mem_get_info", free_and_total)
    shown = [found for found in device_memory(["cuda:1", "cuda:0"]) if found[0] != "cpu"]
    assert shown == [("cuda:1", "used", 700), ("cuda:1", "total", 1000)]
