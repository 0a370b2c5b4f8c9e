"""A new method of a run is one small piece in each of five files; everything else reads the table.

It is added to a copy of the repository, whose server then serves it and whose client then reads it. Needs the generator
of the stubs, whose environment `make check` and `make gen` make; it is made here if it is not there.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("protos", "python_client", "server", "scripts")
GENERATED = "python_client/transparent_llm/wire/_gen/"

OF_THE_CLASS = """
    def residual_norm(self, layer: int) -> Float[torch.Tensor, "batch pos"]:
        return self._read("residual_norm", layer)

    def decomposed_attn("""

ADDED = {  # file: what stands there, and what stands there with the method
    "protos/transparent_llm/v1/service.proto": [
        (
            "  // The output vectors of all neurons",
            """  // Length of the residual stream as it enters a layer.
  rpc ResidualNorm(ResidualNormRequest) returns (stream TensorChunk) {
    option (method).dims = "batch pos";
  }
  // The output vectors of all neurons""",
        ),
        (
            "message NeuronOutputsRequest {",
            """message ResidualNormRequest {
  string run_id = 1;
  optional int32 layer = 2 [(index) = {axis: "layer"}];
  TensorOptions options = 15;
}

message NeuronOutputsRequest {""",
        ),
        (
            "    DecomposedAttnRequest decomposed_attn = 11;",
            "    DecomposedAttnRequest decomposed_attn = 11;\n    ResidualNormRequest residual_norm = 12;",
        ),
    ],
    "python_client/transparent_llm/contract.py": [
        (
            "\n    @abstractmethod\n    def decomposed_attn(",
            '''
    @abstractmethod
    def residual_norm(self, layer: int) -> Float[torch.Tensor, "batch pos"]:
        """Length of the residual stream as it enters a layer."""

    @abstractmethod
    def decomposed_attn(''',
        ),
    ],
    "python_client/transparent_llm/client/remote.py": [("\n    def decomposed_attn(", OF_THE_CLASS)],
    "server/transparent_llm_server/models/transformer_lens.py": [("\n    def decomposed_attn(", OF_THE_CLASS)],
    "server/transparent_llm_server/models/derived/run.py": [
        (
            "\n    def decomposed_attn(",
            '''
    def residual_norm(self, layer: int) -> Value:
        """See the contract."""
        return Stored(self._at(layer)[1].residual_in.norm(dim=-1))

    def decomposed_attn(''',
        ),
    ],
}

READ = """
import torch
from transparent_llm.testing import serve_in_process
from transparent_llm.wire.methods import METHODS
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

local = TransformerLensTransparentLlm(str(DEMO_MODEL))
with serve_in_process(local) as remote:
    for llm in (local, remote):
        llm.run(["The cat sat on the mat", "Hello"])
    assert torch.equal(remote.residual_norm(1), local.residual_norm(1))
    assert torch.equal(remote.fetch([("residual_norm", 0), "tokens"])[0], local.residual_norm(0))
    with remote.reading(pos=slice(0, 2), dtype=torch.float64):
        assert torch.equal(remote.residual_norm(1), local.residual_norm(1)[:, :2].double())
    assert remote.plan([("residual_norm", 0)])[0].dims == METHODS["residual_norm"].dims == ("batch", "pos")
    try:
        remote.residual_norm(99)
    except IndexError as error:
        assert "layer 99" in str(error), error
    else:
        raise AssertionError("a layer that is not there was read")
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    subprocess.run([sys.executable, ROOT / "scripts" / "generate_stubs.py", "--check"], check=True)
    (tmp_path / ".venv-gen").symlink_to(ROOT / ".venv-gen")
    return tmp_path


def differing(copy: Path) -> set[str]:
    files = {path.relative_to(copy) for folder in COPIED for path in (copy / folder).rglob("*") if path.is_file()}
    files -= {path for path in files if "__pycache__" in path.parts}
    return {
        str(path)
        for path in files
        if not (ROOT / path).exists() or not filecmp.cmp(copy / path, ROOT / path, shallow=False)
    }


def test_a_new_method_of_a_run_touches_five_files_and_is_read_remotely(copy: Path) -> None:
    for name, changes in ADDED.items():
        text = (copy / name).read_text(encoding="utf-8")
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} is not once in {name}"
            text = text.replace(old, new)
        (copy / name).write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, copy / "scripts" / "generate_stubs.py"], check=True)

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (copy / "python_client", copy / "server")))}
    subprocess.run([sys.executable, "-c", READ], check=True, env=environment, cwd=copy)

    by_hand = {name for name in differing(copy) if not name.startswith(GENERATED)}
    assert by_hand == ADDED.keys()
    assert len(by_hand) == 5


def test_contributing_names_these_files() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paragraph = re.search(r"^\*\*A new method\*\*.*?\n\n", text, flags=re.MULTILINE | re.DOTALL)
    assert paragraph is not None
    assert set(re.findall(r"`([\w/]+\.(?:py|proto))`", paragraph[0])) - {"tests/architecture/test_new_method.py"} >= {
        "/".join(Path(name).parts[2:]) if not name.startswith("protos") else Path(name).name for name in ADDED
    }
