"""Folders of checkpoints for attacks on what loads them: how they are made, and what is asked of a refusal.

No server has to be started to be attacked in this way: most of these load in this process. Those that could prompt,
hang or end a server go through the command.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    DeepseekV3Config,
    PreTrainedConfig,
)

from support.models.families import build_tokenizer
from transparent_llm.errors import TransparentLlmError
from transparent_llm_server import TransformerLensTransparentLlm

ROWS = [[1, 2, 3, 4, 5], [6, 7]]
MARK = "code-of-a-stranger-ran"
CODE = f"import pathlib\npathlib.Path(__file__).with_name({MARK!r}).touch()\n"

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_WAIT_POLICY": "passive"}
"""Of processes that a test starts."""


def deepseek(layers: int) -> PreTrainedConfig:
    return DeepseekV3Config(
        vocab_size=500,
        hidden_size=16,
        intermediate_size=16,
        moe_intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=2,
        n_shared_experts=1,
        num_experts_per_tok=1,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=layers,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        max_position_embeddings=64,
    )


def saved(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)  # type: ignore[operator]
    build_tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path, **settings: Any) -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(str(folder), **settings)


def logits(llm: TransformerLensTransparentLlm) -> torch.Tensor:
    llm.run_tokens(ROWS)
    return llm.logits()


def require_one_line(error: TransparentLlmError, root: Path) -> None:
    """A sentence that a terminal can show to anybody: no line breaks, no escapes, no place on this machine."""
    assert error.message.isprintable()
    assert len(error.message) < 600
    assert str(root) not in error.message
