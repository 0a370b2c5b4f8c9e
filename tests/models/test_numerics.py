"""What the code around a call has set for itself changes nothing of what the call gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch

from support.models.families import FAMILIES, build_model, build_tokenizer, save
from support.models.tensors import assert_same_bits
from support.servers.engines import SOON
from support.servers.servers import served, tiny
from transparent_llm import TransparentLlm
from transparent_llm.runtime.numerics import standard_numerics
from transparent_llm.testing import serve_in_process
from transparent_llm_server import TransformerLensTransparentLlm

ROWS = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7]]
OF_ALL_KINDS = ["gpt2", "gemma2", "granite", "mixtral", "gpt_oss", "phi3_longrope", "bloom", "mpt", "falcon", "opt"]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        assert torch.get_default_dtype() is dtype  # as it was left
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        assert torch.get_float32_matmul_precision() == precision
        torch.set_float32_matmul_precision("highest")


AROUND: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "default device": lambda: default_device("meta"),
    "inference": torch.inference_mode,
    "gradients": torch.enable_grad,
    "precision": lambda: matmul_precision("medium"),
}


@cache
def loaded(family: str, dtype: torch.dtype = torch.float32) -> TransformerLensTransparentLlm:
    model = build_model(FAMILIES[family]())
    return TransformerLensTransparentLlm(family, hf_model=model, tokenizer=build_tokenizer(), dtype=dtype)


def everything(llm: TransparentLlm) -> list[torch.Tensor]:
    """A run, and a value of each kind of it."""
    llm.run_tokens(ROWS)
    vector = torch.linspace(-1, 1, llm.model_info().d_model, dtype=torch.float32, device="cpu")
    return [
        llm.tokens(),
        llm.mask(),
        llm.logits(),
        llm.residual_out(1),
        llm.residual_after_attn(0),
        llm.ffn_out(1),
        llm.attention_matrix(0, 1, 1),
        llm.attention_output(0, 1, 3, 2),
        llm.decomposed_attn(0, 1),
        llm.decomposed_ffn_out(0, 1, 2),
        llm.neuron_activations(0, 1, 2),
        llm.neuron_output(1, 2),
        llm.unembed(vector, normalize=True),
        llm.unembed(vector, normalize=False),
    ]


def assert_same(got: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for a, b in zip(got, wanted, strict=True):
        assert not a.is_inference()
        assert not a.requires_grad
        assert a.device.type == "cpu"
        assert_same_bits(a, b)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("family", OF_ALL_KINDS)
def test_a_model_in_this_process(family: str, around: str) -> None:
    llm = loaded(family).copy()
    wanted = everything(llm)
    with AROUND[around]():
        got = everything(llm)
    assert_same(got, wanted)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("family", ["gemma2", "mixtral"])
def test_a_model_of_few_bits_in_this_process(family: str, around: str) -> None:
    """Whose products go through float32."""
    llm = loaded(family, torch.bfloat16).copy()
    wanted = everything(llm)
    with AROUND[around]():
        got = everything(llm)
    assert_same(got, wanted)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("family", ["gemma2", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_client_and_a_server_of_this_process(family: str, dtype: torch.dtype, around: str) -> None:
    """Products are made by the client; its settings are the server's too, where they are the process's."""
    local = loaded(family, dtype).copy()
    wanted = everything(local)
    with serve_in_process(local.copy()) as llm:
        with AROUND[around]():
            got = everything(llm)
        assert_same(got, wanted)
        with AROUND[around](), llm.reading(hidden=slice(0, 50, 7)):
            neurons = llm.decomposed_ffn_out(0, 1, 2)
        with AROUND[around](), llm.reading(target=slice(0, 2)):
            heads = llm.decomposed_attn(0, 1)
    assert_same([neurons, heads], [local.decomposed_ffn_out(0, 1, 2)[:50:7], local.decomposed_attn(0, 1)[:2]])


@pytest.mark.parametrize("around", AROUND)
def test_loading(around: str, tmp_path: Path) -> None:
    source = str(save("gemma2", tmp_path))
    plain = TransformerLensTransparentLlm(source)
    with AROUND[around]():
        llm = TransformerLensTransparentLlm(source)
    assert llm.describe() == plain.describe()
    assert_same(everything(llm), everything(plain))


def test_values_can_be_written_to_and_used_with_gradients_after_inference_mode() -> None:
    with served() as client:
        for llm in (tiny().copy(), client):
            with torch.inference_mode():
                got = everything(llm)
            got[3].mul_(2)
            got[2].requires_grad_().sum().backward()
            assert got[2].grad is not None


def test_what_another_thread_sets_meanwhile_stays() -> None:
    with default_dtype(torch.float64):
        with standard_numerics():
            assert torch.get_default_dtype() is torch.float32
            inner = threading.Thread(target=standard_numerics()(lambda: None))
            inner.start()
            inner.join(SOON)
            assert torch.get_default_dtype() is torch.float32  # the block that is open still needs it
        assert torch.get_default_dtype() is torch.float64
    with standard_numerics():
        torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.get_default_dtype() is torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)
