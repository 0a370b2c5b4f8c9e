"""LoRA adapters, merged at load: against PEFT itself, and against the sum in 64 bits."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from support.models.checkpoints import Damage, all_of, damaged, piped, removed, settings_of, written
from support.models.families import FAMILIES, build_model, build_tokenizer, save
from support.models.gguf_files import write
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.config.model import ModelConfig
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.models.loading.huggingface import load as load_files
from transparent_llm_server.models.placement.placement import Placement

ROWS = [[1, 2, 3, 4, 5, 6, 7]]
CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
ATTENTION = ["q_proj", "v_proj"]
LORAS: dict[str, tuple[str, dict[str, Any]]] = {
    "two projections": ("llama_gqa", {"target_modules": ATTENTION, "r": 4, "lora_alpha": 6}),
    "all of them, each of a rank and size of its own": (
        "llama_gqa",
        {
            "target_modules": "all-linear",
            "r": 4,
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 3},
            "alpha_pattern": {"v_proj": 5},
        },
    ),
    "scaled by the root of its rank": ("llama_gqa", {"target_modules": ATTENTION, "use_rslora": True, "lora_alpha": 5}),
    "weights that are stored [in, out]": (
        "gpt2",
        {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "a head of its own": ("llama_gqa", {"target_modules": ATTENTION, "modules_to_save": ["lm_head"]}),
    "biases": ("llama_bias", {"target_modules": ATTENTION, "bias": "lora_only"}),
}
"""What -> (family, what PEFT is told)."""


def adapter(folder: Path, family: str, **settings: Any) -> Any:
    """Train, as it were, an adapter and save it as PEFT does; the model with it, not merged."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT uses what transformers will rename
        adapted = get_peft_model(build_model(FAMILIES[family]()), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llama_gqa", tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    adapter(folder, *LORAS["two projections"][:1], **LORAS["two projections"][1])
    return folder


def load(source: Path | str, adapter: Path | str, **settings: Any) -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(str(source), adapter=str(adapter), **settings)


@pytest.mark.parametrize("what", LORAS)
def test_it_gives_what_peft_gives(what: str, tmp_path: Path) -> None:
    family, settings = LORAS[what]
    wanted = adapter(tmp_path / "lora", family, **settings)(torch.tensor(ROWS)).logits
    source = save(family, tmp_path / "base")
    llm, plain = load(source, tmp_path / "lora"), TransformerLensTransparentLlm(str(source))
    for each in (llm, plain):
        each.run_tokens(ROWS)
    assert torch.allclose(llm.logits(), wanted, atol=2e-5)
    assert not torch.allclose(plain.logits(), wanted, atol=0.1)
    assert all(check.passed for check in llm.describe().parity)
    assert llm.describe().conventions["adapter"].startswith("lora, merged into ")
    assert "adapter" not in plain.describe().conventions


def test_it_is_the_sum_of_weight_and_product(base: Path, lora: Path) -> None:
    """W + alpha / r * B A, in 64 bits, read from the files alone."""
    weights, factors = load_file(base / "model.safetensors"), load_file(lora / WEIGHTS)
    name = "model.layers.1.self_attn.v_proj"
    a, b = (factors[f"base_model.model.{name}.lora_{which}.weight"].double() for which in "AB")
    wanted = weights[f"{name}.weight"].double() + 6 / 4 * (b @ a)
    merged = load_files(str(base), None, None, Placement(), adapter=str(lora)).model.state_dict()[f"{name}.weight"]
    assert merged.shape == wanted.shape
    assert (merged.double() - wanted).abs().max() < 1e-6 * wanted.abs().max()


def test_the_digest_covers_both(base: Path, lora: Path, tmp_path: Path) -> None:
    other = damaged(lora, tmp_path / "other", lambda folder: changed(folder, "layers.0.self_attn.q_proj.lora_B"))
    digests = [
        TransformerLensTransparentLlm(str(base)).describe().digest,
        load(base, lora).describe().digest,
        load(base, lora).describe().digest,
        load(base, other).describe().digest,
    ]
    assert len(set(digests)) == 3
    assert digests[1] == digests[2]


def changed(folder: Path, part: str) -> None:
    held = load_file(folder / WEIGHTS)
    name = next(name for name in held if part in name)
    save_file({**held, name: held[name] * 1.001}, folder / WEIGHTS)


def test_it_is_merged_into_what_a_gguf_file_holds(base: Path, lora: Path, tmp_path: Path) -> None:
    write(tmp_path / "base.gguf", "llama_gqa")
    found, wanted = load(tmp_path / "base.gguf", lora), load(base, lora)
    for each in (found, wanted):
        each.run_tokens(ROWS)
    assert torch.allclose(found.logits(), wanted.logits(), atol=1e-6)
    assert found.describe().quantization == "gguf F32, dequantised"


def test_a_narrow_model_gets_the_sum_rounded_once(base: Path, lora: Path) -> None:
    narrow = load(base, lora, dtype=torch.bfloat16)
    narrow.run_tokens(ROWS)
    wide = load(base, lora)
    wide.run_tokens(ROWS)
    assert (narrow.logits().float() - wide.logits()).abs().max() < 0.05 * wide.logits().abs().max()


def test_a_model_that_is_handed_over_gets_it_too(base: Path, lora: Path) -> None:
    given = load("given", lora, hf_model=build_model(FAMILIES["llama_gqa"]()), tokenizer=build_tokenizer())
    wanted = load(base, lora)
    for each in (given, wanted):
        each.run_tokens(ROWS)
    assert torch.equal(given.logits(), wanted.logits())


def test_it_is_served_by_flag_or_by_table(base: Path, lora: Path) -> None:
    wanted = load(base, lora).describe().digest
    plain, own = ModelConfig(str(base), "plain"), ModelConfig(str(base), "own", adapter=str(lora))
    with running(models=(plain, own)) as server:
        with RemoteTransparentLlm(server.address, model="own") as llm:
            assert llm.describe().digest == wanted
        with RemoteTransparentLlm(server.address, model="plain") as llm:
            assert llm.describe().digest != wanted
    with running(models=(plain,), adapter=str(lora)) as server, RemoteTransparentLlm(server.address) as llm:
        assert llm.describe().digest == wanted
        assert llm.describe().conventions["adapter"] == "lora, merged into 4 weights"
    with pytest.raises(InvalidRequestError, match="adapter belongs to one model, and there are 2: give each its own"):
        ServerConfig(models=(plain, own), adapter=str(lora))


def tensor(name: str, *shape: int) -> Damage:
    """There is one more."""
    return lambda folder: save_file({**load_file(folder / WEIGHTS), name: torch.ones(shape)}, folder / WEIGHTS)


def without(part: str) -> Damage:
    return lambda folder: save_file(
        {n: t for n, t in load_file(folder / WEIGHTS).items() if part not in n}, folder / WEIGHTS
    )


def says(**settings: Any) -> Damage:
    return settings_of(CONFIG, **settings)


Q = "base_model.model.model.layers.0.self_attn.q_proj"
DAMAGED: dict[str, tuple[Damage, str]] = {
    "no settings": (removed(CONFIG), rf"'lora' is no adapter: there is no {CONFIG} in its folder"),
    "no weights": (removed(WEIGHTS), rf"'lora' is no adapter: there is no {WEIGHTS} in its folder"),
    "a pickle": (
        all_of(removed(WEIGHTS), written(PICKLE, "x")),
        rf"'lora' is a pickle \({PICKLE}\), which can run code when it is read; save it as {WEIGHTS}",
    ),
    "weights that end early": (written(WEIGHTS, b"\x10"), rf"{WEIGHTS} is damaged: it ends within its header"),
    "settings that are no JSON": (written(CONFIG, "{"), rf"its {CONFIG} is not JSON"),
    "a pipe": (piped(WEIGHTS), rf"its {WEIGHTS} is a pipe"),
    "another kind": (says(peft_type="LOHA"), r"its peft_type is 'LOHA', and only LORA can be merged here"),
    "magnitudes": (says(use_dora=True), r"it sets use_dora, which is not understood here; merge it with peft"),
    "layers twice": (says(layer_replication=[[0, 2], [0, 2]]), r"it sets layer_replication, which is not understood"),
    "a setting of tomorrow": (says(use_magic=True), r"it sets use_magic, which is not understood here"),
    "a beginning that changes the model": (
        says(init_lora_weights="pissa"),
        r"init_lora_weights is 'pissa', which changes",
    ),
    "another rank": (
        says(r=3),
        r"its settings say rank 3 for model\.layers\.\d\.self_attn\.\w_proj, its tensors have 4",
    ),
    "no alpha": (says(lora_alpha="x"), r"its lora_alpha is 'x', where it must be a number"),
    "a pattern that could take for ever": (
        says(rank_pattern={"(a+)+$": 4}),
        r"rank_pattern holds more than names of modules",
    ),
    "half a pair": (
        without(f"{Q}.lora_B"),
        r"one of the two factors is missing for model\.layers\.0\.self_attn\.q_proj",
    ),
    "a module that is not there": (
        all_of(tensor("base_model.model.x.lora_A.weight", 4, 8), tensor("base_model.model.x.lora_B.weight", 8, 4)),
        r"the model has no x\.weight: the adapter was made for another one",
    ),
    "the head of a classifier": (tensor("base_model.model.score.weight", 2, 64), r"the model has no score\.weight"),
    "another size": (
        all_of(tensor(f"{Q}.lora_A.weight", 4, 32)),
        r"changes model\.layers\.0\.self_attn\.q_proj\.weight as if its shape were \[64, 32\], in the model it is",
    ),
    "factors that do not meet": (tensor(f"{Q}.lora_A.weight", 5, 64), r"have the shapes \[5, 64\] and \[64, 4\]"),
    "a magnitude": (
        tensor(f"{Q}.lora_magnitude_vector.weight", 64),
        r"lora_magnitude_vector\.weight is not understood",
    ),
    "names of another library": (
        tensor("lora_unet_x", 4),
        r"its tensor lora_unet_x does not begin with base_model\.model\.",
    ),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_what_cannot_be_merged_whole_is_refused(fault: str, base: Path, lora: Path, tmp_path: Path) -> None:
    damage, said = DAMAGED[fault]
    with pytest.raises((InvalidRequestError, ModelRefusedError), match=said) as refused:
        load(base, damaged(lora, tmp_path / "lora", damage))
    assert refused.value.message.isprintable()
    assert str(tmp_path) not in refused.value.message


def test_a_weight_in_two_places_is_not_changed_in_one(tmp_path: Path) -> None:
    adapter(tmp_path / "lora", "gpt2", target_modules=["c_attn"], fan_in_fan_out=True)
    tensor("base_model.model.lm_head.weight", 500, 64)(tmp_path / "lora")
    with pytest.raises(ModelRefusedError, match=r"it changes lm_head\.weight, which the model uses in two places"):
        load(save("gpt2", tmp_path / "base"), tmp_path / "lora")


@pytest.mark.parametrize("setting", [{"quantization": "torchao-int8"}, {"device_map": "auto"}], ids=str)
def test_what_was_never_seen_together_is_refused(setting: dict[str, Any], base: Path, lora: Path) -> None:
    with pytest.raises(InvalidRequestError, match=rf"adapter together with {next(iter(setting))} has not been shown"):
        load(base, lora, **setting)


def test_an_adapter_that_is_not_there(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"'nowhere': there is no such folder on the machine of the server"):
        load(base, tmp_path / "nowhere")
    with pytest.raises(InvalidRequestError, match=rf"'base' is no adapter: there is no {CONFIG} in its folder"):
        load(base, base)
    assert json.loads((base / "config.json").read_text())["model_type"] == "llama"
