"""Folders that a stranger could hand to a server: what is loaded of them is exactly the checkpoint, or it is refused.

No server has to be started to be attacked in this way: most of these load in this process. Those that could prompt,
hang or end a server go through the command.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma3Config,
    GPT2ForSequenceClassification,
    GPT2Model,
    LlamaModel,
    PreTrainedConfig,
)

from support.models.checkpoints import (
    INDEX,
    WEIGHTS,
    Damage,
    added,
    all_of,
    changed,
    config,
    cut,
    damaged,
    foldered,
    hub_cache,
    linked,
    piped,
    put,
    removed,
    renamed,
    settings_of,
    sharded,
    tensors,
    without,
    written,
)
from support.models.families import FAMILIES, build_model, build_tokenizer, save
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError, ModelRefusedError, TransparentLlmError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.config.model import ON_DEMAND, ModelConfig
from transparent_llm_server.models.loading.completeness import outline, require_fitting
from transparent_llm_server.models.loading.huggingface import load_model
from transparent_llm_server.models.loading.known_tensors import ABSENT, LEFT_OVER, is_known
from transparent_llm_server.models.placement.placement import Placement
from transparent_llm_server.models.placement.quantization import _is_here

ROWS = [[1, 2, 3, 4, 5], [6, 7]]
TEMPLATE = "additional_chat_templates/a.jinja"
MARK = "code-of-a-stranger-ran"
CODE = f"import pathlib\npathlib.Path(__file__).with_name({MARK!r}).touch()\n"

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_WAIT_POLICY": "passive"}
"""Of processes that a test starts."""

_Index = Callable[[Path, dict[str, Any]], None]


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A sound folder of a family, made once."""
    root = tmp_path_factory.mktemp("whole")

    @cache
    def folder(family: str) -> Path:
        layers = {"deepseek": 2, "deepseek_62": 62}.get(family)
        return saved(build_model(deepseek(layers)), root / family) if layers else save(family, root / family)

    return folder


def load(folder: Path, **settings: Any) -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(str(folder), **settings)


def logits(llm: TransformerLensTransparentLlm) -> torch.Tensor:
    llm.run_tokens(ROWS)
    return llm.logits()


def elsewhere(name: str) -> _Index:
    """The index says that a tensor is in the other file."""

    def change(_: Path, index: dict[str, Any]) -> None:
        index["weight_map"][name] = {"a.safetensors": "b.safetensors"}.get(index["weight_map"][name], "a.safetensors")

    return change


def in_both(folder: Path, _: dict[str, Any]) -> None:
    """Both files have a tensor, each with its own numbers."""
    first, second = (tensors(folder, f"{file}.safetensors") for file in "ab")
    name = min(first)
    put(folder, {**second, name: first[name] + 1}, "b.safetensors")


def index_says(**settings: Any) -> _Index:
    return lambda _, index: index.update(settings)


def header(size: int, text: bytes = b"{}") -> bytes:
    """The beginning of a file of safetensors."""
    return size.to_bytes(8, "little") + text


def one_more_head(t: torch.Tensor) -> torch.Tensor:
    return torch.cat([t, t[:1]])


GPT2 = "transformer.h.{}.{}"
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


DAMAGED: dict[str, tuple[Damage, str]] = {
    "weights that end early": (cut(WEIGHTS, 20_000), rf"{WEIGHTS} is damaged: "),
    "weights without a byte": (cut(WEIGHTS, 0), rf"{WEIGHTS} is damaged: "),
    "a header of 2**63 bytes": (written(WEIGHTS, header(2**63)), rf"{WEIGHTS} is damaged: "),
    "a header of 99 MB that is not there": (written(WEIGHTS, header(99_000_000)), rf"{WEIGHTS} is damaged: "),
    "a header that is no JSON": (written(WEIGHTS, header(2, b"{]")), rf"{WEIGHTS} is damaged: "),
    "a tensor of 2**64 elements": (
        written(
            WEIGHTS, header(69, b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'[:69])
        ),
        rf"{WEIGHTS} is damaged: ",
    ),
    "a pickle by the name of weights": (written(WEIGHTS, b"\x80\x04N."), rf"{WEIGHTS} is damaged: "),
    "a file of the index that is missing": (
        all_of(sharded(), removed("b.saf*")),
        r"names b\.safetensors, which is not the",
    ),
    "a tensor in another file": (
        sharded(elsewhere("transformer.wpe.weight")),
        r"tensor transformer\.wpe\.weight is not in",
    ),
    "a tensor that is in none": (
        sharded(lambda _, index: index["weight_map"].update(other="a.safetensors")),
        r"tensor other is not in a\.safetensors, where",
    ),
    "a tensor in both files": (sharded(in_both), r"is both in a\.safetensors and in b\.safetensors"),
    "an index of another folder": (
        sharded(index_says(weight_map={"x": "../other/a.safetensors"})),
        r"names \.\./other/a\.safetensors, which is not a safetensors file in this folder",
    ),
    "an index of pickles": (
        sharded(index_says(weight_map={"x": "a.bin"})),
        r"names a\.bin, which is not a safetensors",
    ),
    "an index of nothing": (sharded(index_says(weight_map={})), r"has no weight_map"),
    "an index of numbers": (sharded(index_says(weight_map={"x": 3})), r"has no weight_map"),
    "an index without metadata": (sharded(index_says(metadata=None)), r"has no metadata"),
    "an index that is no JSON": (all_of(sharded(), written(INDEX, "{")), rf"its file {INDEX} is no JSON"),
    "a configuration that is no JSON": (written("config.json", "{"), r"its file config\.json is not JSON: Expecting"),
    "a configuration without a byte": (written("config.json", ""), r"its file config\.json is not JSON"),
    "a configuration that is no text": (written("config.json", b"\xff\xfe\x00"), r"its file config\.json is not JSON"),
    "a configuration that is a list": (written("config.json", "[1]"), r"its file config\.json holds a list"),
    "a configuration 100,000 deep": (written("config.json", "[" * 100_000), r"its file config\.json is not JSON"),
    "settings of text that are no JSON": (
        written("generation_config.json", "{"),
        r"generation_config\.json is no JSON",
    ),
    "settings of a tokenizer that are no JSON": (
        written("tokenizer_config.json", "{"),
        r"tokenizer_config\.json is no J",
    ),
    "a tokenizer that is no JSON": (written("tokenizer.json", "{"), r"no tokenizer for 'model': "),
    "a tokenizer that is none": (written("tokenizer.json", "{}"), r"no tokenizer for 'model': "),
    "no heads": (config(n_head=0), r"says n_head = 0; it must be a number from 1"),
    "fewer than no heads": (config(n_head=-4), r"says n_head = -4; "),
    "heads that do not divide": (config(n_head=3), r"no language model can be built from its config\.json: "),
    "a layer and a half": (config(n_layer=1.5), r"says n_layer = 1\.5; "),
    "layers in words": (config(n_layer="two\x1b[2J"), r"says n_layer = 'two\\x1b\[2J'; "),
    "layers that are true": (config(n_layer=True), r"says n_layer = True; "),
    "a billion layers": (config(n_layer=10**9), r"says n_layer = 1000000000, but the files hold 28 tensors in all"),
    "a vocabulary of a billion": (config(vocab_size=10**9), r"says vocab_size = 1000000000, but the files hold"),
    "a width of 2**70": (config(n_embd=2**70), r"says n_embd = 1180591620717411303424; "),
    "a context of nothing": (config(n_positions=0), r"says n_positions = 0; "),
    "a context of a million": (
        config(n_positions=10**6),
        r"config\.json describes 64\d+ weights, its files hold 1\d+: ",
    ),
    "an activation that is none": (config(activation_function="x"), r"no language model can be built.*KeyError"),
    "a type that nobody knows": (
        config(model_type="nope"),
        r"says model_type 'nope', which transformers .* does not know",
    ),
    "a type that is a list": (config(model_type=["gpt2"]), r"says model_type \['gpt2'\], which"),
    "a type of no language model": (config(model_type="vit"), r"no language model can be built from its config\.json"),
    "weights of another name": (config(transformers_weights="x.safetensors"), r"sets transformers_weights; "),
    "an adapter beside the model": (
        written("adapter_config.json", '{"peft_type": "LORA", "base_model_name_or_path": "x"}'),
        r"holds an adapter \(adapter_config\.json\): merge it",
    ),
    "an adapter alone": (
        all_of(removed("config.json", WEIGHTS), written("adapter_config.json", "{}")),
        r"holds an adapter \(adapter_config\.json\): merge it",
    ),
    "an adapter without settings": (
        written("adapter_model.safetensors", ""),
        r"holds an adapter \(adapter_model\.safeten",
    ),
    "a distributed checkpoint": (
        written("shard-00000-model-00001-of-00001.safetensors", ""),
        r"holds the parts of a distributed checkpoint",
    ),
    "code for a type that nobody knows": (
        all_of(
            config(model_type="nope", auto_map={"AutoConfig": "c.C", "AutoModelForCausalLM": "c.M"}),
            written("c.py", CODE),
        ),
        r"requires running its own code \(auto_map\), which is never done",
    ),
    "a pipe in place of the configuration": (piped("config.json"), r"its file config\.json is a pipe, not a file"),
    "a pipe in place of the weights": (piped(WEIGHTS), r"its file model\.safetensors is a pipe"),
    "a pipe in place of the tokenizer": (piped("tokenizer.json"), r"its file tokenizer\.json is a pipe"),
    "a pipe that is not asked for": (piped("chat_template.jinja"), r"its file chat_template\.jinja is a pipe"),
    "a pipe in place of an index": (all_of(removed(WEIGHTS), piped(INDEX)), rf"its file {INDEX} is a pipe"),
    "a folder in place of the configuration": (foldered("config.json"), r"its file config\.json is a folder"),
    "a folder in place of the weights": (foldered(WEIGHTS), r"its file model\.safetensors is a folder"),
    "a link to a file of the machine": (
        linked("config.json", "/etc/passwd"),
        r"config\.json is a link that leads outside the model's",
    ),
    "a link to a device": (
        linked("tokenizer.json", "/dev/zero"),
        r"tokenizer\.json is a link that leads outside the model's folder",
    ),
    "a link to its neighbour": (
        lambda folder: (
            (folder.parent / "other.json").write_bytes((folder / "config.json").read_bytes()),
            linked("config.json", "../other.json")(folder),
        )[1],
        r"config\.json is a link that leads outside the model's folder",
    ),
    "a link among the templates": (
        lambda folder: (foldered("additional_chat_templates")(folder), linked(TEMPLATE, "/etc/passwd")(folder))[1],
        r"its file a\.jinja is a link that leads outside the model's folder",
    ),
    "a tokenizer in another folder": (
        settings_of("tokenizer_config.json", fast_tokenizer_files=["../other/tokenizer.4.0.0.json"]),
        r"its tokenizer_config\.json names files other than those in its folder \(fast_tokenizer_files\)",
    ),
    "a link to nothing": (linked("config.json", "nothing"), r"config\.json is a broken link"),
    "a link to itself": (linked("config.json", "config.json"), r"config\.json is a broken link"),
}
"""What -> (what is done to a GPT-2, what is said)."""


@pytest.mark.parametrize("fault", DAMAGED)
def test_what_is_damaged_is_refused_in_one_line(fault: str, whole: Callable[[str], Path], tmp_path: Path) -> None:
    damage, said = DAMAGED[fault]
    folder = damaged(whole("gpt2"), tmp_path / "model", damage)
    began = time.monotonic()
    with pytest.raises((ModelRefusedError, InvalidRequestError), match=said) as refused:
        load(folder)
    print(f"\n{fault}: refused after {time.monotonic() - began:.2f} s")
    require_one_line(refused.value, tmp_path)
    assert not list(tmp_path.rglob(MARK))


NOT_THERE: dict[str, tuple[Damage, str]] = {
    "no weights": (removed(WEIGHTS), rf"cannot load model 'model' from the folder: there is no {WEIGHTS}"),
    "pickles": (
        all_of(removed(WEIGHTS), written("pytorch_model.bin", "x"), written("old.pt", "x")),
        r"folder: its weights are pickles \(old\.pt, pytorch_model\.bin\), which can run code when they are read",
    ),
    "no configuration": (
        removed("config.json"),
        r"cannot load model 'model' from the folder: there is no config\.json",
    ),
    "no tokenizer": (removed("tokenizer*"), r"no tokenizer for 'model': its files hold no words; give tokenizer="),
}


@pytest.mark.parametrize("fault", NOT_THERE)
def test_what_is_not_there_is_said(fault: str, whole: Callable[[str], Path], tmp_path: Path) -> None:
    damage, said = NOT_THERE[fault]
    with pytest.raises(InvalidRequestError, match=said) as refused:
        load(damaged(whole("gpt2"), tmp_path / "model", damage))
    require_one_line(refused.value, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(whole: Callable[[str], Path], tmp_path: Path) -> None:
    folder = damaged(whole("gpt2"), tmp_path / "model", lambda folder: (folder / WEIGHTS).chmod(0))
    with pytest.raises(ModelRefusedError, match=r"its file model\.safetensors cannot be read by this user"):
        load(folder)


def require_one_line(error: TransparentLlmError, root: Path) -> None:
    """A sentence that a terminal can show to anybody: no line breaks, no escapes, no place on this machine."""
    assert error.message.isprintable()
    assert len(error.message) < 600
    assert str(root) not in error.message


# What looks odd, and is right


def masks(prefix: str, attention: str) -> dict[str, torch.Tensor]:
    """What older versions of transformers saved of each layer."""
    return {
        name: tensor
        for layer in range(2)
        for name, tensor in (
            (f"{prefix}{layer}.{attention}.bias", torch.ones(1, 1, 64, 64, dtype=torch.uint8).tril()),
            (f"{prefix}{layer}.{attention}.masked_bias", torch.tensor(-1e9)),
        )
    }


def frequencies(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{layer}.rotary_emb.inv_freq": torch.ones(8) for layer in range(2)}


def next_token_layer(names: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A layer that DeepSeek V3 numbers behind its last one."""
    last = {name.replace("layers.1.", "layers.2."): t.clone() for name, t in names.items() if "layers.1." in name}
    more = ("eh_proj.weight", "enorm.weight", "hnorm.weight", "shared_head.norm.weight", "shared_head.head.weight")
    return {**last, **{f"model.layers.2.{name}": torch.ones(16) for name in (*more, "embed_tokens.weight")}}


SOUND: dict[str, tuple[str, Damage]] = {
    "GPT-2 with masks": ("gpt2", added(masks("transformer.h.", "attn"))),
    "GPT-2 as it is published, without a prefix": (
        "gpt2",
        all_of(renamed(lambda name: name.removeprefix("transformer.")), added(masks("h.", "attn"))),
    ),
    "GPT-2 with a copy of its tied head": (
        "gpt2",
        lambda folder: added({"lm_head.weight": tensors(folder)["transformer.wte.weight"].clone()})(folder),
    ),
    "GPT-2 with its embedding under the head's name": (
        "gpt2",
        renamed(lambda name: name.replace("transformer.wte.weight", "lm_head.weight")),
    ),
    "GPT-Neo with masks": ("gpt_neo", added(masks("transformer.h.", "attn.attention"))),
    "GPT-J with masks": ("gptj", added(masks("transformer.h.", "attn"))),
    "Pythia with masks and frequencies": (
        "gpt_neox_parallel",
        added({**masks("gpt_neox.layers.", "attention"), **frequencies("gpt_neox.layers.")}),
    ),
    "Llama with frequencies": ("llama_gqa", added(frequencies("model.layers."))),
    "Falcon with frequencies": (
        "falcon",
        added({f"transformer.h.{layer}.self_attention.maybe_rotary.inv_freq": torch.ones(8) for layer in range(2)}),
    ),
    "Bloom without a prefix": ("bloom", renamed(lambda name: name.removeprefix("transformer."))),
    "OPT with its version": ("opt", added({"model.decoder.version": torch.tensor([3.0])})),
    "OPT without a prefix": ("opt", renamed(lambda name: name.removeprefix("model."))),
    "Qwen with a head for the token after next": (
        "qwen3",
        added({"mtp.layers.0.mlp.up_proj.weight": torch.ones(4, 4)}),
    ),
    "a language model beside its tower for pictures": ("gemma3", added({"vision_tower.x.weight": torch.ones(3)})),
    "DeepSeek with a layer for the token after next": (
        "deepseek",
        lambda folder: added(next_token_layer(tensors(folder)))(folder),
    ),
    "several files": ("llama_gqa", sharded()),
    "code beside a type that is known": (
        "gpt2",
        all_of(
            config(auto_map={"AutoConfig": "c.C", "AutoModelForCausalLM": "c.M"}),
            settings_of("tokenizer_config.json", auto_map={"AutoTokenizer": ["c.T", "c.T"]}),
            settings_of("generation_config.json", custom_generate="custom_generate"),
            written("c.py", CODE),
            written("modeling_gpt2.py", CODE),
            written("custom_generate/generate.py", CODE),
            written("pytorch_model.bin", CODE),
        ),
    ),
    "links within the folder": (
        "gpt2",
        lambda folder: (
            (folder / "..data").mkdir(),
            os.rename(folder / "config.json", folder / "..data" / "config.json"),
            linked("config.json", "..data/config.json")(folder),
        )[2],
    ),
    "things that are not read": (
        "gpt2",
        all_of(piped("notes.md"), linked("README.md", "/etc/passwd"), foldered("runs")),
    ),
}
"""What -> (family, what is done to it). None of this changes a value."""


@pytest.mark.parametrize("what", SOUND)
def test_what_is_published_in_odd_ways_is_served_with_the_same_values(
    what: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    family, change = SOUND[what]
    plain = load(whole(family))
    odd = load(damaged(whole(family), tmp_path / "model", change))
    assert torch.equal(logits(odd), logits(plain))
    assert not list(tmp_path.rglob(MARK))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_floating_numbers_of_other_widths_are_the_numbers_of_the_file(
    dtype: torch.dtype, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = damaged(
        whole("gpt2"),
        tmp_path / "model",
        lambda folder: put(folder, {name: tensor.to(dtype) for name, tensor in tensors(folder).items()}),
    )
    loaded = load_model(str(folder), None, Placement())
    for name, tensor in tensors(folder).items():
        assert torch.equal(loaded.state_dict()[name], tensor.float())


def test_a_weight_that_its_type_cannot_hold_is_refused(whole: Callable[[str], Path], tmp_path: Path) -> None:
    folder = damaged(whole("gpt2"), tmp_path / "model", changed("c_fc.weight", lambda t: t * 1e6))
    load(folder)
    with pytest.raises(ModelRefusedError, match=r"as torch\.float16\): load it as a wider type"):
        load(folder, dtype=torch.float16)


def test_a_base_model_whose_head_is_its_embedding_is_served(whole: Callable[[str], Path], tmp_path: Path) -> None:
    base = GPT2Model.from_pretrained(whole("gpt2"), trust_remote_code=False)
    assert torch.equal(logits(load(saved(base, tmp_path / "base"))), logits(load(whole("gpt2"))))


def test_a_base_model_without_its_head_is_refused(whole: Callable[[str], Path], tmp_path: Path) -> None:
    base = LlamaModel.from_pretrained(whole("llama_gqa"), trust_remote_code=False)
    with pytest.raises(ModelRefusedError, match=r"lack lm_head\.weight.*looks like a base model"):
        load(saved(base, tmp_path / "base"))


@pytest.mark.parametrize("shared", [False, True], ids=["own blobs", "blobs that all models share"])
def test_links_of_the_hubs_cache_are_followed(
    shared: bool, whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = hub_cache(whole("gpt2"), tmp_path / "cache", shared=shared)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    wanted = logits(load(whole("gpt2")))
    assert torch.equal(logits(load(snapshot)), wanted)
    assert torch.equal(logits(TransformerLensTransparentLlm("org/tiny")), wanted)
    (tmp_path / "cache" / "secret.json").write_text("{}")
    linked("config.json", "../../../secret.json")(snapshot)
    with pytest.raises(
        ModelRefusedError, match=r"'org/tiny' is not served: its file config\.json is a link that leads outside"
    ):
        TransformerLensTransparentLlm("org/tiny")


def test_several_files_and_an_adapter_of_the_hub(
    whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = damaged(whole("llama_gqa"), tmp_path / "source", sharded())
    snapshot = hub_cache(source, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert torch.equal(logits(TransformerLensTransparentLlm("org/tiny")), logits(load(whole("llama_gqa"))))
    (snapshot / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelRefusedError, match=r"'org/tiny' holds an adapter"):
        TransformerLensTransparentLlm("org/tiny")


# However it is loaded


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


def given(model: Any) -> None:
    TransformerLensTransparentLlm("given", hf_model=model, tokenizer=build_tokenizer())


def test_a_model_that_is_handed_over_without_numbers_is_refused() -> None:
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(FAMILIES["llama_gqa"](), trust_remote_code=False)
    with pytest.raises(
        ModelRefusedError, match=r"LlamaForCausalLM is not served: 2\d of its weights have no values yet"
    ):
        given(empty)
    half = build_model(FAMILIES["llama_gqa"]())
    half.model.layers[1].mlp.up_proj.to("meta")
    with pytest.raises(
        ModelRefusedError, match=r"1 of its weights have no values yet: model\.layers\.1\.mlp\.up_proj\.w"
    ):
        given(half)
    lazy = build_model(FAMILIES["llama_gqa"]())
    lazy.model.layers[1].mlp.up_proj = nn.LazyLinear(96, bias=False)
    with pytest.raises(ModelRefusedError, match=r"1 of its weights have no values yet"):
        given(lazy)


def test_a_model_that_is_handed_over_and_is_none_is_refused() -> None:
    adapted = build_model(FAMILIES["llama_gqa"]())
    adapted._hf_peft_config_loaded = True  # as transformers marks it
    with pytest.raises(ModelRefusedError, match="LlamaForCausalLM has an adapter: merge it"):
        given(adapted)
    with pytest.raises(ModelRefusedError, match="GPT2ForSequenceClassification has no language-model head"):
        given(GPT2ForSequenceClassification(FAMILIES["gpt2"]()))
    with pytest.raises(ModelRefusedError, match="Linear is not a causal language model of transformers"):
        given(nn.Linear(2, 2))


def test_a_model_that_takes_pictures_fetches_and_installs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TransformerLens would ask the hub for `local/Gemma3ForConditionalGeneration`, and run pip."""
    asked: list[str] = []
    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lambda *_, **__: asked.append("the hub"))
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: asked.append("pip"))
    pictures = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sees = Gemma3Config(
        text_config=FAMILIES["gemma3"]().to_dict(),
        vision_config={**pictures, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_index=499,
        boi_token_index=498,
        eoi_token_index=497,
    )
    folder = saved(build_model(sees), tmp_path / "sees")
    assert load(folder).describe().architecture == "Gemma3ForConditionalGeneration"
    assert asked == []
    with pytest.raises(ModelRefusedError, match=r"lack model\.vision_tower\..* would be random numbers"):
        load(damaged(folder, tmp_path / "blind", without("vision_tower")))


# Tokenizers


def with_words(words: int) -> Damage:
    """The tokenizer of a model with more words."""

    def damage(folder: Path) -> None:
        held = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = held["model"]["vocab"]
        vocabulary.update({f"word{number}": number for number in range(len(vocabulary), words)})
        (folder / "tokenizer.json").write_text(json.dumps(held), encoding="utf-8")

    return damage


def test_the_tokenizer_of_a_larger_model_is_refused(whole: Callable[[str], Path], tmp_path: Path) -> None:
    load(damaged(whole("gpt2"), tmp_path / "full", with_words(500)))
    with pytest.raises(
        ModelRefusedError, match=r"that of another model: its token 'word500' has the id 500, the model has"
    ):
        load(damaged(whole("gpt2"), tmp_path / "model", with_words(501)))


def test_tokens_that_were_added_may_lie_outside_the_model_unless_every_sentence_has_one() -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([f"<{number}>" for number in range(50)])
    llm = TransformerLensTransparentLlm("x", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=tokenizer)
    with pytest.raises(InvalidRequestError, match="is not in the vocabulary"):
        llm.run(["<49>"])
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<49> $A", special_tokens=[("<49>", tokenizer.convert_tokens_to_ids("<49>"))]
    )
    with pytest.raises(ModelRefusedError, match=r"puts token 529 into every sentence, the model has 500 tokens"):
        TransformerLensTransparentLlm("x", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=tokenizer)


# The data of what may be left over or absent


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


# The same at every start


STARTS = """
import hashlib, sys
from transparent_llm_server import TransformerLensTransparentLlm
for folder in sys.argv[1:]:
    llm = TransformerLensTransparentLlm(folder)
    llm.run_tokens([[1, 2, 3, 4, 5], [6, 7]])
    print(llm.describe().digest, hashlib.sha256(llm.logits().numpy().tobytes()).hexdigest())
"""


def test_digest_and_values_are_the_same_at_every_start(
    whole: Callable[[str], Path], is_long: bool, tmp_path: Path
) -> None:
    families = list(FAMILIES) if is_long else ["gpt2", "llama_gqa", "mixtral", "gemma2"]
    folders = [str(whole(family)) for family in families]
    command = [sys.executable, "-c", STARTS, *folders]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**ENVIRONMENT, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == len(families)
    here = load(whole("gpt2"))
    wanted = hashlib.sha256(logits(here).numpy().tobytes()).hexdigest()
    assert outputs[0].splitlines()[0] == f"{here.describe().digest} {wanted}"


# Through the command, and to those who ask for a model on demand


def start(folder: Path, said: str = "y\n" * 10) -> tuple[int, str, str]:
    """A server is to serve a folder, and somebody says yes on its standard input: code, standard output and error."""
    command = [sys.executable, "-m", "transparent_llm", "serve", "--device", "cpu", "--listen", "127.0.0.1:0"]
    ended = subprocess.run(
        [*command, "--model", str(folder)],
        input=said,
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT,
    )
    return ended.returncode, ended.stdout, ended.stderr


STARTED = {
    "code": DAMAGED["code for a type that nobody knows"],
    "a pipe": DAMAGED["a pipe in place of the weights"],
    "a head that is missing": (without("ln_f"), r"its files lack transformer\.ln_f"),
    "no heads": DAMAGED["no heads"],
}


@pytest.mark.parametrize("fault", STARTED)
def test_a_server_that_is_to_serve_such_a_folder_ends_with_one_line(
    fault: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    damage, said = STARTED[fault]
    began = time.monotonic()
    code, output, errors = start(damaged(whole("gpt2"), tmp_path / "model", damage))
    print(f"\n{fault}: ended after {time.monotonic() - began:.1f} s")
    assert (code, output) == (1, "")
    assert "Traceback" not in errors
    assert "LOAD REPORT" not in errors
    lines = [line for line in errors.splitlines() if line.startswith("transparent-llm: ")]
    assert len(lines) == 1
    assert re.search(said, lines[0])
    assert not list(tmp_path.rglob(MARK))


def test_whoever_asks_for_a_model_on_demand_is_told_why_without_where(
    whole: Callable[[str], Path], tmp_path: Path
) -> None:
    faults = {
        "missing": without("ln_f"),
        "piped": piped("config.json"),
        "cut": cut(WEIGHTS, 2000),
        "tokenless": removed("tokenizer*"),
        "odd": config(activation_function="x"),
        "bare": removed("*"),
    }
    folders = {name: damaged(whole("gpt2"), tmp_path / name, damage) for name, damage in faults.items()}
    folders["nowhere"] = tmp_path / "nowhere"
    models = tuple(ModelConfig(str(folder), name, load=ON_DEMAND) for name, folder in folders.items())
    with running(models=models) as server:
        with RemoteTransparentLlm(server.address, model="bare", timeout_s=60) as llm:
            assert not [model for model in llm.server_info().models if str(tmp_path) in model.detail]
        for name in folders:
            with RemoteTransparentLlm(server.address, model=name, timeout_s=60) as llm:
                with pytest.raises((ModelRefusedError, InvalidRequestError)) as told:
                    llm.run_tokens(ROWS)
                require_one_line(told.value, tmp_path)
                assert repr(name) in told.value.message
                described = next(model for model in llm.server_info().models if model.info.name == name)
                assert described.detail == told.value.message
