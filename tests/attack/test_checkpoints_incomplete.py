"""Checkpoints whose tensors are not exactly those of the model are refused, however they are loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
)

from attack.checkpoint_folders import load, require_one_line
from support.models.checkpoints import (
    WEIGHTS,
    Damage,
    added,
    changed,
    config,
    damaged,
    put,
    renamed,
    without,
)
from support.models.families import FAMILIES
from transparent_llm.errors import ModelRefusedError
from transparent_llm_server.models.loading.completeness import outline, require_fitting
from transparent_llm_server.models.loading.known_tensors import ABSENT, LEFT_OVER, is_known
from transparent_llm_server.models.placement.quantization import _is_here


def one_more_head(t: torch.Tensor) -> torch.Tensor:
    return torch.cat([t, t[:1]])


INCOMPLETE: dict[str, tuple[str, Damage, str]] = {
    "a gain": (
        "gpt2",
        without("h.1.ln_1.weight"),
        r"its files lack transformer\.h\.1\.ln_1\.weight, which would be random",
    ),
    "a bias": ("gpt2", without("h.0.mlp.c_fc.bias"), r"lack transformer\.h\.0\.mlp\.c_fc\.bias"),
    "a layer": ("gpt2", without("h.1."), r"\(12 in all\).*there is nothing for h\.1: correct the number of layers"),
    "the tied embedding": ("gpt2", without("wte"), r"lack lm_head\.weight, transformer\.wte\.weight"),
    "positions": ("gpt2", without("wpe"), r"lack transformer\.wpe\.weight"),
    "the last norm": ("llama_gqa", without("model.norm."), r"lack model\.norm\.weight"),
    "the embedding": ("llama_gqa", without("embed_tokens"), r"lack model\.embed_tokens\.weight"),
    "the head": ("llama_gqa", without("lm_head"), r"lack lm_head\.weight.*looks like a base model"),
    "the head of GPT-NeoX": ("gpt_neox_parallel", without("embed_out"), r"lack .*looks like a base model"),
    "a router": ("mixtral", without("layers.1.block_sparse_moe.gate"), r"lack model\.layers\.1\.mlp\.gate\.weight"),
    "the last expert": (
        "mixtral",
        without("experts.3."),
        r"shape \[3, 64, 96\], by its config\.json it is \[4, 64, 96\]",
    ),
    "an expert, its number given to none": (
        "mixtral",
        renamed(
            lambda name: name.replace("layers.1.block_sparse_moe.experts.3.", "layers.1.block_sparse_moe.experts.4.")
        ),
        r"its files lack model\.layers\.1\.block_sparse_moe\.experts\.3",
    ),
    "too many layers": (
        "gpt2",
        config(n_layer=3),
        r"lack transformer\.h\.2\..*\(12 in all\).*there is nothing for h\.2",
    ),
    "too few layers": (
        "gpt2",
        config(n_layer=1),
        r"no place for transformer\.h\.1\..*says 1 layers, but its files have more",
    ),
    "too few layers of Llama": (
        "llama_gqa",
        config(num_hidden_layers=1),
        r"no place for model\.layers\.1\..*says 1 layer",
    ),
    "too few layers, the number ignored by the class": (
        "deepseek_62",
        config(num_hidden_layers=61, first_k_dense_replace=61),
        r"no place for model\.layers\.61\..*says 61 layers",
    ),
    "another width": (
        "gpt2",
        config(n_embd=32),
        r"has the shape \[192\], by its config\.json it is \[96\], and .* more",
    ),
    "another vocabulary": (
        "llama_gqa",
        config(vocab_size=400),
        r"has the shape \[500, 64\], by its config\.json it is \[400",
    ),
    "a tensor that grew": ("llama_gqa", changed("q_proj", one_more_head), r"has the shape \[65, 64\]"),
    "a prefix of DataParallel": (
        "gpt2",
        renamed("module.{}".format),
        r"begin with 'module\.' .*as DataParallel has them",
    ),
    "a prefix of compile": ("llama_gqa", renamed("_orig_mod.{}".format), r"begin with '_orig_mod\.'"),
    "a prefix inside": ("llama_gqa", renamed(lambda n: n.replace("model.", "model._orig_mod.")), r"'_orig_mod\.'"),
    "a prefix of PEFT": ("llama_gqa", renamed("base_model.model.{}".format), r"as PEFT has them"),
    "a prefix that nobody knows": (
        "llama_gqa",
        renamed("net.{}".format),
        r"lack lm_head\.weight, .*; LlamaForCausalLM has no",
    ),
    "a classifier's head": (
        "gpt2",
        added({"score.weight": torch.ones(2, 64)}),
        r"no place for score\.weight.*a classifier",
    ),
    "a head for values": ("llama_gqa", added({"v_head.summary.weight": torch.ones(1, 64)}), r"no place for v_head"),
    "an embedding twice": ("gpt2", added({"wte.weight": torch.ones(500, 64)}), r"hold transformer\.wte\.weight twice"),
    "integers": (
        "gpt2",
        changed("c_fc.weight", lambda t: (99 * t).to(torch.int8)),
        r"has the type I8, where weights must be",
    ),
    "integers of experts": ("mixtral", changed("w1", lambda t: (99 * t).to(torch.int8)), r"has the type I8"),
    "numbers of 8 bits": ("llama_gqa", changed("q_proj", lambda t: t.to(torch.float8_e4m3fn)), r"has the type F8_E4M3"),
    "NaN": (
        "gpt2",
        changed("c_fc.weight", lambda t: t.fill_(float("nan"))),
        r"c_fc\.weight has elements that are not finite",
    ),
    "infinity": (
        "llama_gqa",
        changed("up_proj", lambda t: t.index_fill(0, torch.tensor(3), float("inf"))),
        r"to inf as torch",
    ),
    "no tensor": ("gpt2", lambda folder: put(folder, {}), rf"{WEIGHTS} holds no tensor"),
}
"""What -> (family, what is done to it, what is said). With the code before, most of these were served."""


@pytest.mark.parametrize("fault", INCOMPLETE)
def test_what_is_not_exactly_the_checkpoint_is_refused(
    fault: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    family, damage, said = INCOMPLETE[fault]
    with pytest.raises(ModelRefusedError, match=said) as refused:
        load(damaged(whole(family), tmp_path / "model", damage))
    require_one_line(refused.value, tmp_path)


WAYS: dict[str, dict[str, Any]] = {
    "spread": {"device_map": "auto", "max_memory": "cpu=1GiB"},
    "offloaded": {"device_map": "auto", "max_memory": "cpu=200KB"},
    "bfloat16": {"dtype": torch.bfloat16},
}
WAYS.update({way: {"quantization": way} for way, module in (("torchao-int8", "torchao"),) if _is_here(module)})


@pytest.mark.filterwarnings("default")  # of the package that quantizes
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", ["a gain", "the head", "a layer more", "too few layers"])
def test_the_same_is_refused_however_it_is_loaded(
    way: str, fault: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    damage = {
        "a gain": without("layers.1.input_layernorm"),
        "the head": without("lm_head"),
        "a layer more": config(num_hidden_layers=3),
        "too few layers": config(num_hidden_layers=1),
    }[fault]
    settings = {**WAYS[way], "offload_dir": tmp_path / "offloaded"} if "device_map" in WAYS[way] else WAYS[way]
    with pytest.raises(ModelRefusedError, match=r"would be random numbers|has no place for"):
        load(damaged(whole("llama_gqa"), tmp_path / "model", damage), **settings)


def test_no_weight_of_a_supported_family_may_be_absent_or_left_over() -> None:
    for family, make in FAMILIES.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(make(), dtype=torch.float32, trust_remote_code=False)
        for name, _ in model.named_parameters():
            assert not is_known(name, ABSENT), (family, name)
            assert not is_known(name, LEFT_OVER), (family, name)


def test_each_exception_says_why() -> None:
    assert all(len(known.why) > 20 for known in (*LEFT_OVER, *ABSENT))


def test_an_outline_takes_no_memory_and_is_measured_before_anything_is_built(whole: Callable[[str], Path]) -> None:
    large = FAMILIES["llama_gqa"]()
    large.vocab_size, large.num_hidden_layers = 10_000_000, 20
    model = outline(large, "large")
    assert all(parameter.is_meta for parameter in model.parameters())
    with pytest.raises(ModelRefusedError, match=r"config\.json describes \d+ weights, its files hold 0"):
        require_fitting({}, model, large, "large")
    long = FAMILIES["gpt_neo"]()
    long.max_position_embeddings = 2**20
    with pytest.raises(ModelRefusedError, match=r"describes|masks and tables of its config\.json would take"):
        require_fitting({}, outline(long, "long"), long, "long")
