"""Which sparse autoencoders a server is told to load, on the command line and in a file; and that it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.models.saes import identity, save_sae, weights_of
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm_server.config.model import ModelConfig
from transparent_llm_server.config.sae import SaeConfig, saes_of_model
from transparent_llm_server.config.server import ServerConfig, settings_of
from transparent_llm_server.demo import DEMO_MODEL

D_MODEL = 128
"""Of the demo model."""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("res1=./sae@residual_out.1", SaeConfig("res1", "./sae", ("residual_out.1",), "")),
        ("demo/res1=/a@b/c=d@head.0.3", SaeConfig("res1", "/a@b/c=d", ("head.0.3",), "demo")),
        (
            "org/model/t=t@residual_after_attn.1:ffn_out.1",
            SaeConfig("t", "t", ("residual_after_attn.1", "ffn_out.1"), "org/model"),
        ),
    ],
)
def test_what_a_flag_says(text: str, found: SaeConfig) -> None:
    assert SaeConfig.parse(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("./sae@residual_out.1", r"write \[MODEL/\]NAME=DIR@SITE"),
        ("a=./sae", r"write \[MODEL/\]NAME=DIR@SITE"),
        ("a=@residual_out.1", r"write \[MODEL/\]NAME=DIR@SITE"),
        ("a b=./sae@residual_out.1", "where a NAME has letters, digits"),
        ("=./sae@residual_out.1", "where a NAME has letters, digits"),
        ("a=./sae@residual_out", "'residual_out' is no site"),
        ("a=./sae@", "'' is no site"),
        ("a=./sae@residual_out.0:ffn_out.0:ffn_out.1", "write"),
    ],
)
def test_what_no_flag_says(text: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        ServerConfig(saes=(text,))
    with pytest.raises(InvalidRequestError, match=words):
        ModelConfig("demo", "demo", saes=(text,))


def test_which_model_one_is_for() -> None:
    one, other = ModelConfig("x", "one", ("first",)), ModelConfig("y", "other")
    texts = ("first/a=d@ffn_out.0", "other/a=e@ffn_out.0")
    ServerConfig(models=(one, other), saes=texts)
    assert saes_of_model(texts, ("one", "first")) == {"a": ("d", "ffn_out.0")}
    assert saes_of_model(texts, ("other",)) == {"a": ("e", "ffn_out.0")}
    ServerConfig(saes=("demo/a=d@ffn_out.0", "b=d@ffn_out.0"))  # of the embedded model
    with pytest.raises(InvalidRequestError, match="a belongs to one model, and there are 2: write MODEL/a=DIR@SITE"):
        ServerConfig(models=(one, other), saes=("a=d@ffn_out.0",))
    with pytest.raises(InvalidRequestError, match="is for model 'third'; served are one, first, other"):
        ServerConfig(models=(one, other), saes=("third/a=d@ffn_out.0",))
    with pytest.raises(InvalidRequestError, match="two sparse autoencoders of model 'one' are named a"):
        ModelConfig("x", "one", saes=("a=d@ffn_out.0", "a=e@ffn_out.0"))


def test_a_file_says_it_of_a_model_or_of_the_server(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        'saes = ["b/x=d@ffn_out.0"]\n[[models]]\nsource = "demo"\nalias = "a"\nsaes = ["x=e@ffn_out.1"]\n'
        '[[models]]\nsource = "demo"\nalias = "b"\n'
    )
    config = ServerConfig.of(settings_of(file))
    assert config.models[0].saes == ("x=e@ffn_out.1",)
    assert config.saes == ("b/x=d@ffn_out.0",)


def test_a_server_loads_what_it_is_told_within_its_budget(tmp_path: Path) -> None:
    save_sae(tmp_path / "sae", "standard", identity(D_MODEL))
    save_sae(tmp_path / "transcoder", "transcoder", weights_of("transcoder", D_MODEL, 7))
    saes = (
        f"demo/res={tmp_path}/sae@residual_out.1",
        f"trans={tmp_path}/transcoder@residual_after_attn.0:ffn_out.0",
    )
    demo = ModelConfig(str(DEMO_MODEL), "demo")
    with running(models=(demo,)) as server, RemoteTransparentLlm(server.address) as llm:
        alone = llm.describe().weight_bytes
    with running(models=(demo,), saes=saes) as server, RemoteTransparentLlm(server.address) as llm:
        assert [sae.name for sae in llm.saes()] == ["res", "trans"]
        added = sum(sae.weight_bytes for sae in llm.saes())
        assert added == 4 * (2 * D_MODEL**2 + 2 * D_MODEL + 2 * 7 * D_MODEL + 7 + D_MODEL)
        assert llm.describe().weight_bytes == alone + added
        llm.run(["The king"])
        assert llm.features("res", k=3).ids.shape[1] == 3
    with pytest.raises(TooLargeError, match="the pinned models take"):
        with running(models=(demo,), saes=saes, model_bytes=alone + added // 2):
            pass


def test_help_says_how() -> None:
    command = [sys.executable, "-m", "transparent_llm", "serve", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "--sae [MODEL/]NAME=DIR@SITE" in shown
    assert "res1=./sae@residual_out.1" in " ".join(shown.split())
