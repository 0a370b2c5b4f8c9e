"""Models that the hub has, from a hub on loopback: fetched once, kept in the cache, and refused in its own words."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.models.checkpoints import all_of, damaged, removed, sharded, written
from support.models.families import save
from support.models.gguf_files import write
from support.servers.hub import COMMIT, OTHER_TOKEN, TOKEN, Hub, running_hub
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.loading.hub import Wanted, hub_folder
from transparent_llm_server.models.loading.origin import origin_of


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as they are published: with what nobody needs, a pickle among it."""
    root = tmp_path_factory.mktemp("published")
    save("gpt2", root / "tiny")
    for path in ("pytorch_model.bin", "README.md", "run.py", "onnx/config.json"):
        written(path, "x")(root / "tiny")
    damaged(root / "tiny", root / "shards", sharded())
    damaged(root / "tiny", root / "pickles", removed("model.safetensors"))
    (root / "gguf").mkdir()
    write(root / "gguf" / "a-Q8_0.gguf", "gpt2", "Q8_0")
    damaged(root / "gguf", root / "ggufs", written("b-Q4_0.gguf", "x"))
    return root


@pytest.fixture
def hub(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        hub.models = {f"org/{folder.name}": folder for folder in models.iterdir()}
        constants = "huggingface_hub.constants"
        monkeypatch.setattr(f"{constants}.ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(f"{constants}.HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["tiny", "shards"])
def test_a_model_is_fetched_with_what_it_needs_and_no_more(name: str, hub: Hub, models: Path) -> None:
    llm = TransformerLensTransparentLlm(f"org/{name}")
    local = TransformerLensTransparentLlm(str(models / name))
    for each in (llm, local):
        each.run_tokens([[1, 2, 3]])
    assert torch.equal(llm.logits(), local.logits())
    assert llm.describe().digest == local.describe().digest
    assert not [line for line in hub.asked if ".bin" in line or ".py" in line or "onnx" in line]
    hub.asked.clear()
    assert origin_of(f"org/{name}").folder.name == COMMIT
    assert not [line for line in hub.asked if line.startswith("GET org")]  # all of it is in the cache


def test_what_the_cache_has_needs_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that answers with an error, none at all, and none that may be asked."""
    for name in ("org/tiny", "org/shards", "org/gguf", "org/gguf:a-Q8_0.gguf"):
        origin_of(name)
        for status in (429, 503):
            hub.failing = status
            assert origin_of(name).folder.name == COMMIT
        hub.failing = 0
        hub.asked.clear()
        with monkeypatch.context() as offline:
            offline.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
            assert origin_of(name).folder.name == COMMIT
        assert hub.asked == []
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert origin_of("org/tiny").folder.name == COMMIT


def test_one_gguf_file_of_several(hub: Hub, models: Path) -> None:
    llm = TransformerLensTransparentLlm("org/ggufs:a-Q8_0.gguf")
    assert llm.describe().info.name == "org/ggufs:a-Q8_0.gguf"
    assert llm.describe().digest == TransformerLensTransparentLlm(str(models / "gguf")).describe().digest
    assert names(origin_of("org/ggufs:a-Q8_0.gguf").folder) == {"a-Q8_0.gguf"}


REFUSED = {
    "org/nothing": r"there is no such folder here, and http://127\.0\.0\.1:\d+ knows no such model; if it is a private "
    r"one, give it a token with access to it \(HF_TOKEN\)$",
    "org/ggufs": r"it has 2 GGUF files \(a-Q8_0\.gguf, b-Q4_0\.gguf\); say which: org/ggufs:a-Q8_0\.gguf$",
    "org/ggufs:c.gguf": r"it has no c\.gguf; its GGUF files are a-Q8_0\.gguf, b-Q4_0\.gguf$",
    "org/tiny:c.gguf": r"it has no c\.gguf; it has no GGUF file$",
    "org/pickles": r"its weights are pickles \(pytorch_model\.bin\), which can run code when they are read; save them",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_hub_does_not_have_is_said_at_once(name: str, hub: Hub) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidRequestError, match=rf"^cannot load model '{name.partition(':')[0]}': {REFUSED[name]}"):
        TransformerLensTransparentLlm(name)
    assert time.monotonic() - began < 5
    assert len(hub.asked) <= 3 or name == "org/pickles"


def test_a_revision_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(InvalidRequestError, match=r"http://127\.0\.0\.1:\d+ has no revision 'v9' of it$"):
        origin_of("org/tiny", "v9")
    assert origin_of("org/tiny", COMMIT).folder.name == COMMIT


@pytest.mark.parametrize("kind", ["gated", "private"])
def test_who_has_no_access_is_told_what_to_do(kind: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.closed["org/tiny"] = kind
    said = {
        "gated": r"is gated: accept its terms there, and give the server",
        "private": r"knows no such model; if it is",
    }
    with pytest.raises(InvalidRequestError, match=rf"{said[kind]}.* a token with access to it \(HF_TOKEN\)$"):
        origin_of("org/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_of-nobody")
    with pytest.raises(
        InvalidRequestError, match=r"does not accept the token that it was sent; give the server another t"
    ):
        origin_of("org/tiny")
    monkeypatch.setenv("HF_TOKEN", OTHER_TOKEN)
    with pytest.raises(InvalidRequestError, match=rf"{said[kind]}.* another token \(HF_TOKEN\) that has access$"):
        origin_of("org/tiny")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert names(origin_of("org/tiny").folder) > {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_hub_that_cannot_be_reached_is_said_with_what_the_cache_lacks(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.failing = 503
    with pytest.raises(InvalidRequestError, match=r"answers 503, and the hub's cache \(HF_HOME\) has no model of that"):
        origin_of("org/tiny")
    hub.failing = 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed}")
    began = time.monotonic()
    with pytest.raises(
        InvalidRequestError, match=rf"http://127\.0\.0\.1:{closed} cannot be reached \(ConnectError: .*\), an"
    ):
        origin_of("org/tiny")
    assert time.monotonic() - began < 5
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InvalidRequestError, match=r"HF_HUB_OFFLINE is set, so that it is not asked for, and the hub's cac"
    ):
        origin_of("org/tiny")


def test_a_hub_that_says_nothing_is_not_waited_for_longer_than_that(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transparent_llm_server.models.loading.hub.ASKED_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(InvalidRequestError, match=r"cannot be reached \(ReadTimeout: timed out\), and the hub's"):
            origin_of("org/tiny")


def test_a_model_that_the_disk_cannot_hold_is_not_begun(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (models / "tiny" / "model.safetensors").stat().st_size
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=weights - 1))
    with pytest.raises(
        InvalidRequestError, match=rf"{weights} bytes must be fetched, and the cache has room for {weights - 1}"
    ):
        origin_of("org/tiny")
    assert not [line for line in hub.asked if "model.safetensors" in line]


def test_an_adapter_of_the_hub(hub: Hub, models: Path, tmp_path: Path) -> None:
    folder = damaged(models / "tiny", tmp_path / "lora", all_of(removed("*.json", "*.safetensors")))
    written("adapter_config.json", '{"peft_type": "LORA"}')(folder)
    written("adapter_model.safetensors", "x")(folder)
    hub.models["org/lora"] = folder
    found = hub_folder("org/lora", None, Wanted(adapter=True))
    assert names(found) == {"adapter_config.json", "adapter_model.safetensors"}


def test_the_command_asks_the_hub_that_the_environment_names(hub: Hub, tmp_path: Path) -> None:
    """With no patch of any library: a wrong name ends the command, with one line and soon."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "-m", "transparent_llm", "serve", "--listen", "127.0.0.1:0", "--device", "cpu"]
    ended = subprocess.run(
        [*command, "--model", "org/nothing"], capture_output=True, text=True, timeout=120, env=environment
    )
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if line.startswith("transparent-llm: ")]
    assert len(lines) == 1
    assert f"{hub.address} knows no such model" in lines[0]
    assert [line for line in hub.asked if "/models/" in line] == ["GET api/models/org/nothing"]


def test_models_are_fetched_by_a_command_that_serves_nothing(hub: Hub, tmp_path: Path) -> None:
    """As an init container does; then the cache is all that a server needs."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "-m", "transparent_llm", "serve", "--fetch-only", "--model", "org/tiny"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (ended.returncode, ended.stdout) == (0, "")
    weights = tmp_path / "home" / "hub" / "models--org--tiny" / "snapshots" / COMMIT / "model.safetensors"
    assert weights.exists()
    assert re.search(rf"org/tiny: fetching \d+ bytes from {hub.address}", ended.stderr)
