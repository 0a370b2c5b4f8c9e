"""Device names as users write them."""

from __future__ import annotations

import pytest
import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.models.placement.device import resolve_device

N_GPUS = torch.cuda.device_count()
needs_gpu = pytest.mark.skipif(N_GPUS == 0, reason="needs a GPU; none is here")
UNKNOWN = "device {!r} is unknown; use cpu, cuda, cuda:INDEX, gpu or auto"
NOT_HERE = "device {!r} is not available: {} CUDA devices are visible; use cpu or auto"


def refusal(name: str) -> str:
    with pytest.raises(InvalidRequestError) as refused:
        resolve_device(name)
    return refused.value.message


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_takes_a_gpu_if_there_is_one() -> None:
    assert resolve_device("auto") == torch.device("cuda" if N_GPUS else "cpu")


@needs_gpu
@pytest.mark.parametrize("name", ["cuda", "gpu"])
def test_gpu_is_another_word_for_cuda(name: str) -> None:
    assert resolve_device(name) == torch.device("cuda")


@needs_gpu
def test_a_gpu_can_be_named_by_its_index() -> None:
    assert resolve_device(f"cuda:{N_GPUS - 1}") == torch.device("cuda", N_GPUS - 1)


@pytest.mark.skipif(N_GPUS > 0, reason="there is a GPU here")
@pytest.mark.parametrize("name", ["cuda", "gpu", "cuda:0"])
def test_a_gpu_that_is_not_there_is_refused(name: str) -> None:
    assert refusal(name) == NOT_HERE.format(name, 0)


@pytest.mark.parametrize("index", [N_GPUS, 127])
def test_an_index_past_the_last_gpu_is_refused(index: int) -> None:
    assert refusal(f"cuda:{index}") == NOT_HERE.format(f"cuda:{index}", N_GPUS)


@pytest.mark.parametrize("index", [128, 200, 254, 255, 256, 65_536])
def test_an_index_that_torch_wraps_around_is_refused_too(index: int) -> None:
    """`torch.device` keeps an index in 8 bits: cuda:200 becomes cuda:-56, cuda:255 and cuda:256 become cuda:0."""
    assert f"device 'cuda:{index}' is" in refusal(f"cuda:{index}")


@pytest.mark.skipif(N_GPUS > 0, reason="there is a GPU here")
def test_an_index_that_torch_wraps_around_onto_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "device 'cuda:256' is" in refusal("cuda:256")


@pytest.mark.parametrize(
    "name",
    ["", "CPU", "Cuda", "mps", "meta", "xla", "gpu:0", "cuda:", "cuda:-1", "cuda:x", "cuda 0", "0", "cuda:99999999999"],
)
def test_an_unknown_name_is_refused(name: str) -> None:
    assert refusal(name) == UNKNOWN.format(name)
