"""What is published in odd ways is served with the same values, at every start."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    GPT2Model,
    LlamaModel,
)

from attack.checkpoint_folders import CODE, ENVIRONMENT, MARK, load, logits, saved
from support.models.checkpoints import (
    Damage,
    added,
    all_of,
    changed,
    config,
    damaged,
    foldered,
    hub_cache,
    linked,
    piped,
    put,
    renamed,
    settings_of,
    sharded,
    tensors,
    written,
)
from support.models.families import FAMILIES
from transparent_llm.errors import ModelRefusedError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.loading.huggingface import load as load_files
from transparent_llm_server.models.placement.placement import Placement


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
    loaded = load_files(str(folder), None, None, Placement()).model
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
        ModelRefusedError, match=r"'org/tiny' is not served: its config\.json is a link that leads outside"
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
