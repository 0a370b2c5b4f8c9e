"""Models whose weights are quantized when they are loaded."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import AwqConfig

from support.models.families import FAMILIES, build_model, build_tokenizer, save
from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.placement.quantization import QUANTIZATIONS, _is_here, quantization_of

ROWS = [[1, 2, 3, 4, 5], [6, 7]]
HERE = [name for name, way in QUANTIZATIONS.items() if _is_here(way.module)]
MISSING = sorted(set(QUANTIZATIONS) - set(HERE))


@pytest.mark.parametrize("name", ["int8", "quanto", "bitsandbytes-8bit", ""])
def test_an_unknown_way_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        quantization_of(name)
    assert refused.value.message == f"quantization {name!r} is unknown; known are quanto-int8, torchao-int8"


@pytest.mark.parametrize(("name", "package"), [("quanto-int8", "optimum-quanto"), ("torchao-int8", "torchao")])
def test_a_missing_package_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InvalidRequestError) as refused:
        TransformerLensTransparentLlm(str(tmp_path), quantization=name)
    assert (
        refused.value.message
        == f"quantization {name!r} requires a package that is not installed: pip install {package}"
    )


@pytest.mark.parametrize("name", MISSING)
def test_a_package_that_is_not_here_is_missed(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="requires a package that is not installed"):
        quantization_of(name)


def test_it_does_not_go_with_a_device_map(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidRequestError, match="quantization together with device_map has not been shown to be correct"
    ):
        TransformerLensTransparentLlm(str(tmp_path), quantization="torchao-int8", device_map="auto")


@pytest.mark.parametrize("config", [{"quant_method": "awq", "bits": 4}, AwqConfig(bits=4)], ids=["dict", "object"])
def test_a_model_that_is_quantized_already_is_refused(config: object) -> None:
    hf_model = build_model(FAMILIES["llama_gqa"]())
    hf_model.config.quantization_config = config
    with pytest.raises(ModelRefusedError) as refused:
        TransformerLensTransparentLlm("llama", hf_model=hf_model, tokenizer=build_tokenizer())
    assert refused.value.message == (
        "LlamaForCausalLM is already quantized (awq), and its weights cannot be read; load plain ones, and quantize "
        "them here if need be: quanto-int8, torchao-int8"
    )


def test_files_that_need_a_package_to_be_read_are_refused_with_its_name(tmp_path: Path) -> None:
    config = json.loads((save("llama_gqa", tmp_path) / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "quanto", "weights": "int8"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidRequestError if "quanto-int8" in MISSING else ModelRefusedError, match="quanto"):
        TransformerLensTransparentLlm(str(tmp_path))


@pytest.mark.skipif(not HERE, reason="neither optimum-quanto nor torchao is installed")
@pytest.mark.filterwarnings("default")  # of those packages
@pytest.mark.parametrize("way", HERE or ["none"])
class TestQuantized:
    @pytest.mark.parametrize("family", ["llama_gqa", "gemma2", "mixtral", "opt"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_a_quantized_model_proves_itself_against_itself(
        self, way: str, family: str, dtype: torch.dtype, tmp_path: Path
    ) -> None:
        source = str(save(family, tmp_path / family))
        llm = TransformerLensTransparentLlm(source, quantization=way, dtype=dtype)
        whole = TransformerLensTransparentLlm(source, dtype=dtype)
        for model in (llm, whole):
            model.run_tokens(ROWS)
        known = llm.describe()
        assert known.quantization == way
        assert known.unsupported == {}
        assert known.digest != whole.describe().digest
        assert known.weight_bytes < whole.describe().weight_bytes
        assert {"attention_sum", "logits_vs_huggingface"} <= {check.name for check in known.parity}
        difference = (llm.logits() - whole.logits()).abs().max().item()
        assert 0 < difference < 0.5  # of about 4: it is another model, though not by much

    def test_neurons_are_read_as_floating_numbers_that_are_nearly_those_of_the_files(
        self, way: str, tmp_path: Path
    ) -> None:
        source = str(save("llama_gqa", tmp_path / "llama"))
        llm, whole = TransformerLensTransparentLlm(source, quantization=way), TransformerLensTransparentLlm(source)
        got, wanted = llm.neuron_output(1, 7), whole.neuron_output(1, 7)
        assert type(got) is torch.Tensor
        assert got.dtype is torch.float32
        assert 0 < (got - wanted).abs().max().item() < wanted.abs().max().item() / 64

    def test_the_same_files_have_the_same_digest(self, way: str, tmp_path: Path) -> None:
        source = str(save("llama_gqa", tmp_path / "llama"))
        digests = {TransformerLensTransparentLlm(source, quantization=way).describe().digest for _ in range(2)}
        assert len(digests) == 1

    def test_a_model_of_which_nothing_is_quantized_is_refused(self, way: str, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequestError, match=f"quantization '{way}' changed no weight of GPT2LMHeadModel"):
            TransformerLensTransparentLlm(str(save("gpt2", tmp_path / "gpt2")), quantization=way)
