"""What a model will take of memory, told from its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from support.models.families import FAMILIES, build_model, save
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.loading.size import weight_bytes


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_is_what_the_parameters_take(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    elements = sum(parameter.numel() for parameter in build_model(FAMILIES[family]()).parameters())
    assert weight_bytes(str(save(family, tmp_path)), dtype) == elements * dtype.itemsize


def test_the_files_of_an_index_are_added(tmp_path: Path) -> None:
    model = build_model(FAMILIES["llama_gqa"]())
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    (tmp_path / "other.safetensors").write_bytes(b"not named by the index")
    assert weight_bytes(str(tmp_path), torch.float32) == sum(p.numel() for p in model.parameters()) * 4


def test_files_that_do_not_tell_are_left_to_the_load(tmp_path: Path) -> None:
    assert weight_bytes(str(tmp_path), torch.float32) is None
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    assert weight_bytes(str(tmp_path), torch.float32) is None
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert weight_bytes(str(tmp_path), torch.float32) is None


@pytest.mark.parametrize("file", ["model.safetensors", "model.safetensors.index.json"])
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(file: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / file)
    assert weight_bytes(str(tmp_path), torch.float32) is None


def test_a_load_says_before_it_begins_what_it_takes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = weight_bytes(str(save("gpt2", tmp_path / "tiny")), torch.bfloat16)
    with caplog.at_level("INFO", "transparent_llm_server.models.loading.memory"):
        TransformerLensTransparentLlm(str(tmp_path / "tiny"), dtype=torch.bfloat16)
    told = [record.getMessage() for record in caplog.records if record.name.endswith(".memory")]
    assert told == [f"tiny: its weights take {wanted} bytes"]
