"""Models of real shapes with random weights, written as folders that `from_pretrained` reads offline."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SPECIAL_TOKEN = "<|endoftext|>"
_SPREAD = 0.02


def gpt2_small() -> GPT2Config:
    """The shape of the published model: 12 layers, 12 heads, d_model 768, 50,257 tokens."""
    return GPT2Config()


def part_of_gpt2_small(share: int) -> GPT2Config:
    """One in `share` of its layers and tokens: a layer is as large, and the rest weighs as much beside it."""
    whole = gpt2_small()
    return GPT2Config(n_layer=whole.n_layer // share, **_ids(vocab_size=whole.vocab_size // share))


def one_wide_layer(d_model: int, n_positions: int) -> LlamaConfig:
    """One narrow head, next to no neurons or tokens: a wide residual stream that takes little time to compute."""
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16}
    sizes = {"hidden_size": d_model, "intermediate_size": 16, "max_position_embeddings": n_positions}
    return LlamaConfig(num_hidden_layers=1, **heads, **sizes, **_ids(vocab_size=300))


def llama_1b(n_layers: int = 16) -> LlamaConfig:
    """The shape of Llama 3.2 1B: d_model 2048, 32 heads on 8 of keys and values, 128,256 tokens, in bfloat16."""
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131_072}
    more = {"rope_theta": 500_000.0, "tie_word_embeddings": True, "dtype": torch.bfloat16}
    return LlamaConfig(num_hidden_layers=n_layers, **heads, **sizes, **more, **_ids(vocab_size=128_256))


@contextmanager
def saved(config: PreTrainedConfig, spread: float = _SPREAD) -> Iterator[Path]:
    """A folder with a model of this shape and a tokenizer of bytes; weights have that standard deviation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        config.architectures = [type(model).__name__]
        config.save_pretrained(folder)
        save_file(
            random_weights(model, config.dtype or torch.float32, spread),
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        byte_tokenizer(config.vocab_size).save_pretrained(folder)
        yield folder


def random_weights(model: PreTrainedModel, dtype: torch.dtype, spread: float = _SPREAD) -> dict[str, torch.Tensor]:
    """Of the size that training starts from, the same for the same shape."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, like in model.named_parameters():  # one name for tied weights
        weights[name] = (spread * torch.randn(like.shape, generator=generator)).to(dtype)
        if like.ndim == 1 and name.endswith("weight"):
            weights[name] += 1.0  # gains of norms
    return weights


def byte_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """One token a byte, so that any text can be encoded, and others that no text has: a server warns of ids without."""
    entries = [SPECIAL_TOKEN, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    entries += [f"<{i}>" for i in range(len(entries), size)]
    tokenizer = Tokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"bos_token": SPECIAL_TOKEN, "eos_token": SPECIAL_TOKEN, "pad_token": SPECIAL_TOKEN}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, clean_up_tokenization_spaces=False)


def _ids(**sizes: int) -> dict[str, Any]:
    return {**sizes, "bos_token_id": 0, "eos_token_id": 0}
