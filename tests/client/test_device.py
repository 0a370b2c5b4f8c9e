"""Where results land: said when a client is made, not when its first tensor comes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from transparent_llm import RemoteTransparentLlm, errors

N_GPUS = torch.cuda.device_count()


@pytest.mark.parametrize("name", [f"cuda:{N_GPUS}", "cuda:200", "cuda:256"])
def test_a_gpu_that_is_not_there_is_refused_at_once(name: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        RemoteTransparentLlm(device=name)
    assert str(refused.value) == f"device {name!r} is not available: this machine has {N_GPUS} CUDA devices; use cpu"


@pytest.mark.skipif(N_GPUS > 0, reason="there is a GPU here")
def test_any_gpu_where_there_is_none_is_refused_at_once() -> None:
    with pytest.raises(errors.InvalidRequestError, match="device 'cuda' is not available: this machine has 0 CUDA"):
        RemoteTransparentLlm(device="cuda")


@pytest.mark.parametrize(
    ("given", "got"), [("gpu0", "str 'gpu0'"), ("", "str ''"), (1.5, "float 1.5"), (["cpu"], "list")]
)
def test_what_is_no_device_is_refused_in_words(given: Any, got: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        RemoteTransparentLlm(device=given)
    assert str(refused.value) == f"device is no name of one, got {got}: write cpu, cuda or cuda:INDEX"


def test_another_kind_of_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        errors.InvalidRequestError, match="device 'hpu' is not available: this machine has no hpu; use cpu"
    ):
        RemoteTransparentLlm(device="hpu")


def test_the_cpu_by_name_and_as_a_device() -> None:
    for device in ("cpu", torch.device("cpu")):
        RemoteTransparentLlm(device=device).close()
