"""Tiny models of every supported family, with random weights, made in memory.

Tests run on these instead of on published checkpoints: nothing is downloaded, a model takes milliseconds, and the
weights are large enough (logits of magnitude 4 to 5, no trivial bias or gain) that a forgotten bias, norm, scale or
head shows as an error far above rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    MptConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    StableLmConfig,
    Starcoder2Config,
)
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.pytorch_utils import Conv1D

ConfigMaker = Callable[[], PreTrainedConfig]

N_LAYERS = 2
D_MODEL = 64
N_HEADS = 4
D_VOCAB = 500
N_CTX = 64
D_FFN = 96
SLIDING_WINDOW = 8
ROPE_BORDER = 12
"""Tokens of the longest row that a LongRoPE model computes with its short frequencies."""

SPECIAL_TOKEN = "<|endoftext|>"

_TOKENS: dict[str, Any] = {"vocab_size": D_VOCAB, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_SIZES: dict[str, Any] = {
    **_TOKENS,
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "max_position_embeddings": N_CTX,
}
_GATED: dict[str, Any] = {**_SIZES, "intermediate_size": D_FFN}
_GROUPED: dict[str, Any] = {**_GATED, "num_key_value_heads": 2}


def _maker(config_class: type[PreTrainedConfig], sizes: dict[str, Any], **more: Any) -> ConfigMaker:
    """A function that makes a fresh config each time, since models keep and change the one they are given."""
    return lambda: config_class(**{**sizes, **more})


def _gpt_neo() -> PreTrainedConfig:
    """One global and one local layer, the local window shorter than the test sentences."""
    sizes = {**_TOKENS, "hidden_size": D_MODEL, "max_position_embeddings": N_CTX}
    attention = {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": SLIDING_WINDOW}
    return GPTNeoConfig(**sizes, **attention, num_heads=N_HEADS)


def _phi3_longrope() -> PreTrainedConfig:
    """As in the models for 128k tokens: rows longer than a border have other frequencies than shorter ones."""
    n_frequencies = D_MODEL // N_HEADS // 2
    factors = {
        "short_factor": [1.0] * n_frequencies,
        "long_factor": [1.0 + 2 * n for n in range(n_frequencies)],
    }
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **factors, "original_max_position_embeddings": ROPE_BORDER}
    return Phi3Config(**_GROUPED, rope_parameters=rope, original_max_position_embeddings=ROPE_BORDER)


def _mpt(**more: Any) -> PreTrainedConfig:
    return MptConfig(**_TOKENS, d_model=D_MODEL, n_heads=N_HEADS, n_layers=N_LAYERS, max_seq_len=N_CTX, **more)


def _bloom(**more: Any) -> PreTrainedConfig:
    """`seq_length` is what published Bloom configs carry; the model itself has no maximum."""
    return BloomConfig(**_TOKENS, hidden_size=D_MODEL, n_head=N_HEADS, n_layer=N_LAYERS, seq_length=N_CTX, **more)


_GPT2_SIZES = {**_TOKENS, "n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": N_HEADS, "n_positions": N_CTX}
_NEOX_SIZES = {**_SIZES, "intermediate_size": 4 * D_MODEL}
_OPT_SIZES = {**_SIZES, "ffn_dim": 4 * D_MODEL, "word_embed_proj_dim": D_MODEL}
_GRANITE_SCALES = {
    "residual_multiplier": 0.7,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "logits_scaling": 0.8,
}
_GEMMA_SIZES = {**_GROUPED, "head_dim": D_MODEL // N_HEADS, "query_pre_attn_scalar": D_MODEL // N_HEADS}
_GEMMA3_LAYERS = ["sliding_attention", "sliding_attention", "full_attention"]
_WIDE_HEADS = {"head_dim": 2 * D_MODEL // N_HEADS}
"""Heads wider than d_model / n_heads, as in the published Qwen 3 and Gemma 3 models."""

_FALCON_7B = {**_SIZES, "multi_query": True, "parallel_attn": True, "new_decoder_architecture": False, "alibi": False}
_FALCON_NEW = {**_FALCON_7B, "new_decoder_architecture": True, "num_kv_heads": 2}
_GPT_OSS = {
    **_GROUPED,
    "head_dim": D_MODEL // N_HEADS,
    "sliding_window": SLIDING_WINDOW,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}

FAMILIES: dict[str, ConfigMaker] = {
    "gpt2": _maker(GPT2Config, _GPT2_SIZES),
    "gpt_neo": _gpt_neo,
    "gpt_neox_parallel": _maker(GPTNeoXConfig, _NEOX_SIZES, use_parallel_residual=True),
    "gpt_neox_sequential": _maker(GPTNeoXConfig, _NEOX_SIZES, use_parallel_residual=False),
    "gptj": _maker(GPTJConfig, _GPT2_SIZES, rotary_dim=8, tie_word_embeddings=False),
    "opt": _maker(OPTConfig, _OPT_SIZES),
    "llama_gqa": _maker(LlamaConfig, _GROUPED),
    "llama_bias": _maker(LlamaConfig, _GATED, attention_bias=True, mlp_bias=True),
    "mistral": _maker(MistralConfig, _GROUPED, sliding_window=SLIDING_WINDOW),
    "mixtral": _maker(MixtralConfig, _GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "qwen2": _maker(Qwen2Config, _GROUPED),
    "qwen3": _maker(Qwen3Config, {**_GROUPED, **_WIDE_HEADS}),
    "qwen3_moe": _maker(
        Qwen3MoeConfig, _GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48, head_dim=16
    ),
    "gemma": _maker(GemmaConfig, _GROUPED, head_dim=16),
    "gemma2": _maker(
        Gemma2Config,
        _GEMMA_SIZES,
        sliding_window=SLIDING_WINDOW,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=6.0,
    ),
    "gemma3": _maker(
        Gemma3TextConfig,
        {**_GEMMA_SIZES, **_WIDE_HEADS},
        num_hidden_layers=3,
        layer_types=_GEMMA3_LAYERS,
        sliding_window=SLIDING_WINDOW,
    ),
    "phi": _maker(PhiConfig, _NEOX_SIZES),
    "phi3": _maker(Phi3Config, _GROUPED),
    "phi3_longrope": _phi3_longrope,
    "falcon": _maker(FalconConfig, _FALCON_7B),
    "bloom": _bloom,
    "mpt": _mpt,
    "cohere": _maker(CohereConfig, _GROUPED, logit_scale=1.3),
    "granite": _maker(GraniteConfig, _GROUPED, **_GRANITE_SCALES),
    "olmo2": _maker(Olmo2Config, _GROUPED),
    "stablelm": _maker(StableLmConfig, _GROUPED),
    "starcoder2": _maker(Starcoder2Config, _GROUPED),
    "gpt_oss": _maker(GptOssConfig, _GPT_OSS),
}
"""A tiny config of every family that is supported; each has a context of `N_CTX` tokens."""

REFUSED: dict[str, ConfigMaker] = {
    "falcon_new_decoder": _maker(FalconConfig, _FALCON_NEW),
    "falcon_new_decoder_no_mq": _maker(FalconConfig, _FALCON_NEW, multi_query=False),
    "bloom_post_ln_residual": lambda: _bloom(apply_residual_connection_post_layernorm=True),
    "opt_post_norm": _maker(OPTConfig, _OPT_SIZES, do_layer_norm_before=False),
    "gpt_neox_no_bias": _maker(GPTNeoXConfig, _NEOX_SIZES, attention_bias=False),
}
"""Variants that the engine is known to get wrong and must refuse at load."""


def hybrid_config() -> Lfm2Config:
    """A convolution in place of attention in its first layer, attention in its second."""
    return Lfm2Config(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        layer_types=["conv", "full_attention"],
        block_auto_adjust_ff_dim=False,
    )


def build_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model of this config with eager attention, in eval mode, its random weights fixed by the seed."""
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    torch.manual_seed(seed)  # constructors draw initial values too
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    generator = torch.Generator().manual_seed(seed)
    seen: set[int] = set()  # tied weights are drawn once
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    _randomise(parameter, generator, is_bias=name.endswith("bias"), fan_in_axis=_fan_in_axis(module))
    return model.eval().requires_grad_(False)


def _fan_in_axis(module: nn.Module) -> int:
    """The axis that a weight sums over: the last, but for the modules that store [in, out]."""
    return -2 if isinstance(module, (Conv1D, GptOssExperts)) else -1


def _randomise(parameter: torch.Tensor, generator: torch.Generator, *, is_bias: bool, fan_in_axis: int) -> None:
    """Weights of unit gain; biases and gains moved away from the 0 and 1 at which mistakes do not show."""
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim == 1:
        parameter.add_(0.1 * noise)
    elif is_bias:  # one row per expert
        parameter.copy_(0.1 * noise)
    else:
        parameter.copy_(noise / parameter.shape[fan_in_axis] ** 0.5)


_PARAGRAPH = """\
The river comes down from the hills in the early morning, when the mist still lies over the fields and the birds
begin to sing. Nobody in the village knows how old the mill is, but everybody knows the story of the man who built
it. He said that water never forgets the way it came, and that a wheel which turns slowly will turn for a long time.
His daughter kept the books, counted the sacks of grain and wrote down the numbers: 12, 48, 365 and 1024. In winter
the stones stood still; in summer they were heard until late in the evening. "What is it that you are looking for?"
she asked the travellers who stopped there, and they answered that they were looking for the place where the road
ends. There is no such place, she told them, because every road becomes another road when you walk on.
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer, trained on the spot, that encodes any string.

    It has fewer entries than the models have rows, so that there are ids without a text, as in published models.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=D_VOCAB - 20,
        special_tokens=[SPECIAL_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_PARAGRAPH], trainer)
    special = {"bos_token": SPECIAL_TOKEN, "eos_token": SPECIAL_TOKEN, "pad_token": SPECIAL_TOKEN}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, clean_up_tokenization_spaces=False)


def save(name: str, directory: str | Path) -> Path:
    """Write a family as a directory that `from_pretrained` reads offline; the same files for the same name.

    The weights are those of `build_model(config)` with its default seed.
    """
    config = {**FAMILIES, **REFUSED}[name]()
    path = Path(directory)
    build_model(config).save_pretrained(path)
    build_tokenizer().save_pretrained(path)
    return path
