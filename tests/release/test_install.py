"""The wheel in empty environments, as a user has it: with the server, and the client alone."""

from __future__ import annotations

import json
import re
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.deploy.checkout import ROOT
from support.servers.read_only import clean_environment
from transparent_llm.version import __version__
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

READ_VALUES = Path(__file__).with_name("read_values.py")
OWN = {"googleapis-common-protos", "grpcio", "jaxtyping", "protobuf", "safetensors", "torch", "tqdm"}
"""What the client itself needs."""

THEIRS = {
    "filelock": "torch",
    "fsspec": "torch",
    "jinja2": "torch",
    "markupsafe": "jinja2",
    "mpmath": "sympy",
    "networkx": "torch",
    "numpy": "safetensors[torch]",
    "sympy": "torch",
    "typing-extensions": "torch, grpcio",
    "wadler-lindig": "jaxtyping",
}
"""What those need, and which of them. A torch with CUDA also brings nvidia-* and triton."""


@dataclass(frozen=True)
class Environment:
    """An environment with a wheel in it, and a folder to work in that knows nothing of this checkout."""

    folder: Path
    work: Path

    def run(self, *command: str | Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """A program of the environment."""
        program, *arguments = command
        return subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=self.work,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def installed(self) -> set[str]:
        """Names of distributions, in their normal form, less pip's own."""
        found = json.loads(self.run("python", "-m", "pip", "list", "--format=json").stdout)
        return {normal(package["name"]) for package in found} - {"pip", "setuptools", "wheel"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(folder: Path, *requirements: str) -> Environment:
    """A fresh environment with these, at the versions that the tests run with."""
    venv.create(folder / "environment", with_pip=True)
    environment = Environment(folder / "environment", folder / "work")
    environment.work.mkdir()
    finished = environment.run(
        *("python", "-m", "pip", "install", "--no-cache-dir", "--constraint", ROOT / "constraints.txt", *requirements),
        timeout_s=1500,
    )
    assert finished.returncode == 0, finished.stderr
    return environment


@pytest.fixture(scope="module")
def with_server(asked_for: None, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return installed(tmp_path_factory.mktemp("server"), "torch==2.13.0", f"{wheel}[server]")


@pytest.fixture(scope="module")
def client_alone(asked_for: None, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return installed(tmp_path_factory.mktemp("client"), str(wheel))


def test_the_demo_runs_out_of_the_wheel(with_server: Environment) -> None:
    finished = with_server.run("transparent-llm", "demo")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.splitlines()[-1] == "server stopped"


def test_the_wheel_says_its_version(with_server: Environment, client_alone: Environment) -> None:
    for environment in (with_server, client_alone):
        assert environment.run("transparent-llm", "--version").stdout.strip() == __version__


def test_the_client_alone_pulls_in_what_it_needs_and_nothing_of_the_server(client_alone: Environment) -> None:
    others = client_alone.installed() - {"transparent-llm"} - OWN
    of_cuda = {name for name in others if name.startswith(("nvidia-", "cuda-")) or name == "triton"}
    assert others - of_cuda == THEIRS.keys()
    assert (torch.version.cuda is None) <= (of_cuda == set())


def test_no_requirement_is_broken(with_server: Environment, client_alone: Environment) -> None:
    for environment in (with_server, client_alone):
        finished = environment.run("python", "-m", "pip", "check")
        assert finished.returncode == 0, finished.stdout


def test_the_client_alone_reads_a_server_to_the_bit(client_alone: Environment, address: str) -> None:
    finished = client_alone.run("python", READ_VALUES, address, "values.safetensors")
    assert (finished.returncode, finished.stderr) == (0, "")
    llm = TransformerLensTransparentLlm(str(DEMO_MODEL))
    llm.run(["My lord, the king of France", "What say you?"])
    expected = {
        "tokens": llm.tokens(),
        "logits": llm.logits(),
        "residual": llm.residual_out(1),
        "pattern": llm.attention_matrix(0, 1, 2),
        "heads": llm.decomposed_attn(1, 2),
        "neurons": llm.decomposed_ffn_out(0, 3, 4),
        "unembedded": llm.unembed(llm.residual_out(3)[0, -1], normalize=True),
    }
    assert list((client_alone.work / "weights").rglob("*.safetensors")) != []
    read = load_file(client_alone.work / "values.safetensors")
    assert read.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(read[name], value)] == []


def test_the_command_of_the_client_alone_asks_and_writes(client_alone: Environment, address: str) -> None:
    finished = client_alone.run("transparent-llm", "health", "--target", address)
    assert (finished.returncode, finished.stderr) == (0, "")
    arguments = ("--layer", "3", "My lord", "--target", address, "--output", "residual.safetensors")
    finished = client_alone.run("transparent-llm", "get", "residual_out", *arguments)
    assert (finished.returncode, finished.stderr) == (0, "")
    (residual,) = load_file(client_alone.work / "residual.safetensors").values()
    assert residual.shape[-1] == 128


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_the_client_alone_says_what_a_server_needs(client_alone: Environment, command: str) -> None:
    finished = client_alone.run("transparent-llm", command)
    assert finished.returncode != 0
    assert "requires the [server] extra" in finished.stderr
    assert "pip install 'PATH[server]'" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_the_client_alone_says_what_the_integration_needs(client_alone: Environment) -> None:
    finished = client_alone.run("python", "-c", "import transparent_llm.integrations.transformer_lens")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith(
        "ImportError: transparent_llm.integrations.transformer_lens requires"
    )
