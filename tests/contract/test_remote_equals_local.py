"""Remote minus local is exactly 0: every method, every family, in float32 and in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from support.servers.backends import Backend, local_model, model_arguments
from transparent_llm import RemoteTransparentLlm, TransparentLlm
from transparent_llm.demo import server_process
from transparent_llm.testing import serve_in_process

SENTENCES = ["The river runs slowly to the sea", "a", "Why not? Because."]
READS: list[tuple[str, tuple[Any, ...]]] = [
    ("tokens", ()),
    ("mask", ()),
    ("logits", ()),
    ("residual_in", (0,)),
    ("residual_after_attn", (1,)),
    ("residual_out", (0,)),
    ("residual_out", (1,)),
    ("ffn_out", (1,)),
    ("decomposed_ffn_out", (0, 1, 2)),
    ("decomposed_ffn_out", (2, 0, 0)),
    ("neuron_activations", (0, 1, 2)),
    ("neuron_output", (1, 11)),
    ("attention_matrix", (2, 1, 3)),
    ("attention_output", (0, 1, 2)),
    ("attention_output", (0, 1, 2, 3)),
    ("attention_output_per_head", (2, 0, 1, 0)),
    ("decomposed_attn", (1, 0)),
    ("decomposed_attn", (0, 1)),
]


def assert_bit_identical(remote: TransparentLlm, local: TransparentLlm, dtype: torch.dtype) -> None:
    remote.run(SENTENCES)
    local.run(SENTENCES)
    for name, arguments in READS:
        got, wanted = getattr(remote, name)(*arguments), getattr(local, name)(*arguments)
        assert got.dtype == wanted.dtype, name
        assert got.dtype == dtype or not got.is_floating_point(), name
        assert torch.equal(got, wanted), f"{name}{arguments}: {(got.float() - wanted.float()).abs().max()}"
    vector = local.residual_out(1)[0, 1]
    for normalize in (True, False):
        assert torch.equal(remote.unembed(vector, normalize), local.unembed(vector, normalize))
    assert remote.tokens_to_strings(remote.tokens()[0]) == local.tokens_to_strings(local.tokens()[0])


def test_float32(backend: Backend, family: str, family_folders: dict[str, Path]) -> None:
    local = local_model(family_folders[family]).copy()
    assert_bit_identical(backend.open(family), local, torch.float32)


def test_bfloat16(family: str, family_folders: dict[str, Path]) -> None:
    local = local_model(family_folders[family], torch.bfloat16)
    with serve_in_process(local) as remote:
        assert_bit_identical(remote, local.copy(), torch.bfloat16)
        assert remote.describe().dtype == torch.bfloat16


def test_bfloat16_of_another_process(family_folders: dict[str, Path]) -> None:
    folders = {family: family_folders[family] for family in ("gpt2", "gemma2", "gpt_oss")}
    with server_process("--dtype", "bfloat16", *model_arguments(folders)) as address:
        for family, folder in folders.items():
            with RemoteTransparentLlm(address, model=family) as remote:
                assert_bit_identical(remote, local_model(folder, torch.bfloat16).copy(), torch.bfloat16)
