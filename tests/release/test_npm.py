"""The npm package: what is in it, and that it reads a server out of an empty folder."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch

from support.deploy.checkout import ROOT
from support.servers.read_only import clean_environment
from transparent_llm.version import __version__
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

CLIENT = ROOT / "clients" / "typescript"
READ_VALUES = Path(__file__).with_name("read_values.mjs")
ENTRIES = ("index", "node", "web")


def run(*command: str | Path, folder: Path, timeout_s: float = 600) -> str:
    finished = subprocess.run(
        command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=timeout_s
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def package(asked_for: None) -> Path:
    """Packed as `make dist` does."""
    run("make", "-C", CLIENT, "dist", folder=ROOT)
    return CLIENT / f"transparent-llm-{__version__}.tgz"


@pytest.fixture(scope="module")
def contents(package: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(package) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member)
            assert content is not None, f"{member.name} is no plain file"
            found[member.name.removeprefix("package/")] = content.read()
    return found


def test_the_package_has_what_was_built_and_nothing_else(contents: dict[str, bytes]) -> None:
    beside = {"package.json", "README.md", "LICENSE"}
    assert beside <= contents.keys()
    assert {f"dist/{entry}{kind}" for entry in ENTRIES for kind in (".js", ".d.ts")} <= contents.keys()
    others = contents.keys() - beside
    assert [name for name in others if not name.startswith("dist/") or not name.endswith((".js", ".d.ts"))] == []
    assert contents["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert json.loads(contents["package.json"])["version"] == __version__


def test_no_file_of_the_package_names_this_machine(contents: dict[str, bytes]) -> None:
    assert [name for name, content in contents.items() if str(ROOT).encode() in content] == []


def test_the_package_reads_a_server_to_the_bit(package: Path, address: str, tmp_path: Path) -> None:
    peers = json.loads((CLIENT / "package.json").read_text(encoding="utf-8"))["peerDependencies"]
    (tmp_path / "package.json").write_text('{"private": true}', encoding="utf-8")
    for_node = f"@connectrpc/connect-node@{peers['@connectrpc/connect-node']}"
    run("npm", "install", "--no-audit", "--no-fund", package, for_node, folder=tmp_path)
    shutil.copy(READ_VALUES, tmp_path)
    read = json.loads(run("node", READ_VALUES.name, address, folder=tmp_path))
    llm = TransformerLensTransparentLlm(str(DEMO_MODEL))
    llm.run(["My lord, the king of France", "What say you?"])
    expected = {
        "residual": llm.residual_out(1),
        "heads": llm.decomposed_attn(1, 2),
        "neurons": llm.decomposed_ffn_out(0, 3, 4),
    }
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        assert read[name]["dtype"] == "F32"
        data = torch.frombuffer(bytearray(base64.b64decode(read[name]["data"])), dtype=torch.float32)
        assert torch.equal(data.reshape(read[name]["shape"]), value), name
