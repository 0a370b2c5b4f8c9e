"""What docs/OPERATIONS.md says of bytes for each run is what servers say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from support.deploy.manifests import ROOT
from support.models.families import FAMILIES
from support.servers.servers import served, tiny
from transparent_llm_server import TransformerLensTransparentLlm

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "run_bytes.py"))
GUIDE = (ROOT / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
EXPERTS = {"mixtral", "qwen3_moe", "gpt_oss"}
NORMS_BEHIND = {"gemma2": 2, "gemma3": 2, "olmo2": 2}


def shape_of(family: str) -> Any:
    """From the configuration, by the names that families give to the same thing."""
    config = FAMILIES[family]()
    heads, d_model = config.num_attention_heads, config.hidden_size
    shared = 1 if getattr(config, "multi_query", False) else getattr(config, "num_key_value_heads", None) or heads
    neurons = tiny(family).describe().d_ffn[0] if family not in EXPERTS else d_model
    return SCRIPT["Shape"](
        layers=config.num_hidden_layers,
        d_model=d_model,
        heads=heads,
        kv_heads=shared,
        d_head=getattr(config, "head_dim", None) or d_model // heads,
        neurons=neurons,
        branch_norms=NORMS_BEHIND.get(family, 0),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_formula_is_what_the_engine_keeps(family: str) -> None:
    described, shape = tiny(family).describe(), shape_of(family)
    assert shape.bytes_per_position(4) == described.run_bytes_per_position
    assert shape.bytes_per_position_pair(4) == described.run_bytes_per_position_pair
    assert shape.run_bytes(3, 17, 4) == described.run_bytes(3, 17)


@pytest.mark.parametrize("family", ["gpt2", "llama_gqa", "mixtral", "gemma2"])
def test_the_formula_holds_for_half_as_many_bytes(family: str, family_folders: dict[str, Path]) -> None:
    llm = TransformerLensTransparentLlm(str(family_folders[family]), dtype=torch.bfloat16)
    value_bytes, described = SCRIPT["BYTES_OF"]["bfloat16"], llm.describe()
    assert shape_of(family).bytes_per_position(value_bytes) == described.run_bytes_per_position
    assert shape_of(family).bytes_per_position_pair(value_bytes) == described.run_bytes_per_position_pair


def test_it_is_what_a_server_stores() -> None:
    with served() as llm:
        llm.run_tokens([[1, 2, 3, 4, 5], [6, 7]])
        assert llm.server_info().stored_run_bytes == shape_of("gpt2").run_bytes(2, 5, 4)


def test_the_table_of_the_guide_is_the_one_of_the_script() -> None:
    for row in SCRIPT["rows"](SCRIPT["PUBLISHED"]):
        assert row in GUIDE


def test_gpt2_small_is_what_the_architecture_page_says() -> None:
    (said,) = re.findall(
        r"([\d.]+) MB for 1 x 128 tokens of GPT-2 small", (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    )
    assert round(SCRIPT["PUBLISHED"]["GPT-2 small"].run_bytes(1, 128, 4) / 1e6, 1) == float(said)
