"""GGUF files of tiny models, written as llama.cpp's converter does: its names, order of rows and blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers import Gemma3TextConfig, GPT2Config, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from support.models.families import (
    D_FFN,
    D_MODEL,
    D_VOCAB,
    FAMILIES,
    N_CTX,
    N_HEADS,
    SLIDING_WINDOW,
    build_model,
    build_tokenizer,
)

Change = Callable[[str, np.ndarray], np.ndarray]
"""What the converter does to a tensor of that name."""


def permuted(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of a query or key as ggml rotates them: pairs side by side, where Hugging Face has halves."""
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _llama(config: PreTrainedConfig) -> Change:
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    return lambda name, held: next((permuted(held, n) for part, n in heads.items() if f".{part}." in name), held)


def _gpt2(_: PreTrainedConfig) -> Change:
    turned = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")
    return lambda name, held: np.ascontiguousarray(held.T) if name.endswith(turned) else held


def _gemma(_: PreTrainedConfig) -> Change:
    return lambda name, held: held + 1 if name.endswith("norm.weight") else held


def gpt2_config() -> GPT2Config:
    """With the usual context, as transformers reads no other from a file."""
    return GPT2Config(vocab_size=D_VOCAB, n_embd=D_MODEL, n_layer=2, n_head=N_HEADS, n_positions=1024)


def gemma3_config() -> Gemma3TextConfig:
    """As many layers as its usual order of window and full attention has."""
    return Gemma3TextConfig(
        vocab_size=D_VOCAB,
        hidden_size=D_MODEL,
        intermediate_size=D_FFN,
        num_hidden_layers=6,
        num_attention_heads=N_HEADS,
        num_key_value_heads=2,
        head_dim=32,
        sliding_window=SLIDING_WINDOW,
        max_position_embeddings=N_CTX,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )


FILES: dict[str, tuple[Callable[[], PreTrainedConfig], str, Callable[[PreTrainedConfig], Change]]] = {
    "llama_gqa": (FAMILIES["llama_gqa"], "llama", _llama),
    "qwen2": (FAMILIES["qwen2"], "qwen2", lambda _: lambda _, held: held),
    "gpt2": (gpt2_config, "gpt2", _gpt2),
    "gemma3": (gemma3_config, "gemma3", _gemma),
}
"""Family -> (its configuration, llama.cpp's architecture, what the converter does to its tensors)."""


def settings_of(config: PreTrainedConfig, architecture: str) -> dict[str, Any]:
    """What the file says of the model."""
    said = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": getattr(config, "intermediate_size", 4 * config.hidden_size),
        "attention.head_count": config.num_attention_heads,
    }
    if architecture == "gpt2":
        return {**said, "attention.layer_norm_epsilon": config.layer_norm_epsilon}
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    said |= {
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if architecture == "gemma3":
        said |= {"attention.key_length": 32, "attention.value_length": 32, "attention.sliding_window": SLIDING_WINDOW}
    if architecture == "llama":
        said |= {"rope.dimension_count": config.head_dim, "vocab_size": config.vocab_size}
    return said


def tensors_of(model: PreTrainedModel, family: str) -> dict[str, np.ndarray]:
    """The model's weights by llama.cpp's names, as its converter writes them."""
    _, architecture, change = FILES[family]
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, model.config.num_hidden_layers)
    found = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        found[f"{names.get_name(stem)}.{suffix}"] = tensor.float().numpy()
    turn = change(model.config)
    return {name: turn(name, held) for name, held in found.items()}


def write(
    path: Path,
    family: str,
    kind: str = "F32",
    *,
    settings: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
    architecture: str = "",
    begins: bool = False,
) -> PreTrainedModel:
    """Write the model of a family; matrices as blocks of that kind. What is given comes on top, None takes away.

    With `begins`, every text begins with a token of its own. Returns the model that was written.
    """
    config, own, _ = FILES[family]
    model = build_model(config())
    writer = gguf.GGUFWriter(path, architecture or own)
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if kind == 'F32' else 'MOSTLY'}_{kind}"])
    for key, value in {**settings_of(model.config, own), **(settings or {})}.items():
        _add(writer, f"{architecture or own}.{key}", value)
    _add_tokenizer(writer, build_tokenizer())
    if begins:
        writer.add_add_bos_token(True)
    for name, held in {**tensors_of(model, family), **(tensors or {})}.items():
        if held is not None:
            number = gguf.GGMLQuantizationType[kind if held.ndim > 1 else "F32"]
            writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(held), number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def rounded(held: np.ndarray) -> np.ndarray:
    """What Q8_0 makes of numbers, by its definition: blocks of 32 whole numbers up to 127 with a scale of 16 bits."""
    blocks = held.astype(np.float32).reshape(-1, 32)
    exact = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    scale = exact.astype(np.float16).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(exact == 0, 0, blocks / exact)
    whole = np.trunc(shares + np.copysign(np.float32(0.5), shares))
    return (whole * scale).reshape(held.shape)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    held = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    words = sorted(held["vocab"], key=held["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*words, *(f"<unused{number}>" for number in range(D_VOCAB - len(words)))])
    writer.add_token_merges([" ".join(merge) for merge in held["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
