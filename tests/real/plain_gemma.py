"""Gemma 3 270M in plain Hugging Face, from the same file by another way: the published sizes, names by hand, and other
code for the blocks of numbers than the server's."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from transformers.integrations.gguf.dequant import GGML_BLOCK, dequantize

from transparent_llm_server.models.loading.gguf_header import GgufTensor, read_header

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
KINDS = {"Q4_K": 12, "Q6_K": 14, "Q8_0": 8}


def plain_gemma(path: Path) -> Gemma3ForCausalLM:
    """The model, with eager attention, in eval mode."""
    config = Gemma3TextConfig(
        vocab_size=262_144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=512,
        max_position_embeddings=32_768,
        rms_norm_eps=1e-6,
        layer_types=["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(18)],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        attn_implementation="eager",
    )
    model = Gemma3ForCausalLM(config)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        header = read_header(path, path.name)
        state = {_name(name): _numbers(name, tensor, mapped) for name, tensor in header.tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])  # which is tied
    return model.eval().requires_grad_(False)


def _name(name: str) -> str:
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    assert found is not None
    layer, own = found[1], NAMES[found[2]]
    return f"{own}.weight" if layer is None else f"model.layers.{layer}.{own}.weight"


def _numbers(name: str, tensor: GgufTensor, mapped: mmap.mmap) -> torch.Tensor:
    raw = torch.frombuffer(bytearray(mapped[tensor.start : tensor.start + tensor.nbytes]), dtype=torch.uint8)
    if tensor.kind == "F32":
        held = raw.view(torch.float32)
    elif tensor.kind == "Q5_0":
        held = _q5_0(raw.reshape(-1, 22))
    else:
        held = dequantize(raw.reshape(-1, GGML_BLOCK[KINDS[tensor.kind]][1]), KINDS[tensor.kind])
    held = held.reshape(tensor.shape)
    return held - 1 if "norm" in name else held  # llama.cpp stores what the norm multiplies with


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    """Blocks of 32 numbers: a scale of 16 bits, 32 highest bits, 16 bytes with two times four bits each."""
    scale = blocks[:, :2].contiguous().view(torch.float16).float()
    high = (blocks[:, 2:6, None] >> torch.arange(8, dtype=torch.uint8)).reshape(-1, 32) & 1
    low = torch.cat([blocks[:, 6:] & 15, blocks[:, 6:] >> 4], dim=1)
    return scale * ((low | (high << 4)).float() - 16)
