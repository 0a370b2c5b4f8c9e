"""From settings to a model that can be loaded: what is a model's own, what is the server's, what cannot be."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from support.models.families import save
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.app import Server
from transparent_llm_server.config.model import ON_DEMAND, ModelConfig
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.models.placement.placement import Placement
from transparent_llm_server.registry.source import model_source, placement


def placed(server: dict[str, Any], model: dict[str, Any]) -> Placement:
    return placement(ServerConfig(**{"device": "cpu", **server}), ModelConfig("a", "a", **model))


def test_what_a_model_does_not_say_the_server_says() -> None:
    said = {"dtype": torch.bfloat16, "device_map": "auto", "max_memory": "cpu=1GiB", "offload_dir": Path("x")}
    assert placed(said, {}) == Placement("cpu", **said)
    own = {"dtype": torch.float16, "device_map": "balanced", "max_memory": "cpu=2GiB", "offload_dir": Path("y")}
    assert placed(said, own) == Placement("cpu", **own)


def test_a_model_with_a_device_of_its_own_is_not_spread() -> None:
    said = {"device_map": "auto", "max_memory": "cpu=1GiB", "offload_dir": Path("x")}
    assert placed(said, {"device": "cpu"}) == Placement("cpu")
    assert placed(said, {"device": "cpu", "device_map": "balanced"}).max_memory == "cpu=1GiB"


@pytest.mark.parametrize(
    ("server", "model", "message"),
    [
        ({"max_memory": "cpu=1GiB"}, {}, "max_memory requires device_map; give one, for example auto"),
        ({}, {"device": "cpu", "offload_dir": Path("x")}, "offload_dir requires device_map"),
        ({}, {"device_map": "none"}, "device_map 'none' is neither auto"),
        ({}, {"device": "gpu:0"}, "device 'gpu:0' is unknown"),
        ({}, {"device": "cpu,cuda:0"}, "unknown; .*; to spread a model over several devices, use device_map"),
        ({"device_map": "auto"}, {"adapter": "x"}, "adapter together with device_map has not been shown"),
        ({"device_map": "auto"}, {"quantization": "quanto-int8"}, "quantization together with device_map"),
        ({"quantization": "int3"}, {}, "quantization 'int3' is unknown; known are quanto-int8, torchao-int8"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    server: dict[str, Any], model: dict[str, Any], message: str
) -> None:
    config = ServerConfig(**{"device": "cpu", **server})
    with pytest.raises(InvalidRequestError, match=message):
        model_source(config, ModelConfig("a", "a", **{"load": ON_DEMAND, **model}), nullcontext)


def test_a_hub_model_says_where_it_would_come_from() -> None:
    offer = model_source(ServerConfig(), ModelConfig("org/big", "big", revision="v2", load=ON_DEMAND), nullcontext)
    assert offer.weight_bytes is None
    assert offer.known is not None
    assert (offer.known.detail, offer.known.revision) == ("to be loaded from the hub (org/big)", "v2")


def test_a_revision_that_is_not_there_is_an_error_of_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's cache of this test holds `main` only: each file is asked for in the revision that was named."""
    cache = tmp_path / "cache"
    folder = cache / "models--org--tiny"
    snapshot = folder / "snapshots" / "1234"
    save("gpt2", snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "v1").write_text("1234")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    llm = TransformerLensTransparentLlm("org/tiny", revision="v1")
    assert llm.describe().revision == "v1"
    with pytest.raises(InvalidRequestError, match="org/tiny"):
        TransformerLensTransparentLlm("org/tiny", revision="v2")


def test_a_spread_model_is_served_and_described(tmp_path: Path) -> None:
    source = str(save("llama_gqa", tmp_path / "llama"))
    local = TransformerLensTransparentLlm(source)
    memory = f"cpu={local.describe().weight_bytes * 2 // 3}"
    model = ModelConfig(source, "llama", device_map="auto", max_memory=memory, offload_dir=tmp_path / "offloaded")
    server = Server(ServerConfig(listen="127.0.0.1:0", device="cpu", drain_s=1.0, models=(model,)))
    server.load()
    with RemoteTransparentLlm(server.start(), timeout_s=60) as llm:
        for each in (llm, local):
            each.run_tokens([[1, 2, 3], [4]])
        known = llm.describe()
        assert known.device == "cpu, disk"
        assert sum(known.devices.values()) == 2
        assert torch.equal(llm.logits(), local.logits())
        assert torch.equal(llm.decomposed_attn(0, 1), local.decomposed_attn(0, 1))
        assert torch.equal(llm.decomposed_ffn_out(0, 1, 2), local.decomposed_ffn_out(0, 1, 2))
        assert torch.equal(llm.attention_output(0, 1, 2, 3), local.attention_output(0, 1, 2, 3))
        assert re.fullmatch(r"[0-9a-f]{64}", known.digest)
        assert known.digest == local.describe().digest
    server.stop()
