"""A new method of a run is one small piece in each of five files; everything else reads the table.

The method that is added here to a copy of the repository answers two tensors of different types, which is the most
that there is to say of one; new_method_script.py reads it from the copy's server by the copy's client. Needs the
generator of the stubs, whose environment `make check` and `make gen` make; it is made here if it is not there.
"""

from __future__ import annotations

import filecmp
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("protos", "python_client", "server", "scripts")
GENERATED = "python_client/transparent_llm/wire/_gen/"

IMPORTED = [
    (
        "from transparent_llm.contract import ModelInfo\n",
        "from transparent_llm.contract import LargestElements, ModelInfo\n",
    ),
    (
        "\n    def decomposed_attn(",
        """
    def largest_elements(self, layer: int) -> LargestElements:
        return LargestElements(*self._read("largest_elements", layer))

    def decomposed_attn(""",
    ),
]

ADDED = {  # file: what stands there, and what stands there with the method
    "protos/transparent_llm/v1/service.proto": [
        (
            "  // The output vectors of all neurons",
            """  // The three largest elements of the residual stream as it enters a layer, and where they are.
  rpc LargestElements(LargestElementsRequest) returns (stream TensorChunk) {
    option (method) = {
      parts: {name: "values", dims: "batch pos rank"}
      parts: {name: "ids", dims: "batch pos rank", dtype: DTYPE_I64}
    };
  }
  // The output vectors of all neurons""",
        ),
        (
            "message NeuronOutputsRequest {",
            """message LargestElementsRequest {
  string run_id = 1;
  optional int32 layer = 2 [(index) = {axis: "layer"}];
  TensorOptions options = 15;
}

message NeuronOutputsRequest {""",
        ),
        (
            "    DecomposedAttnRequest decomposed_attn = 11;",
            "    DecomposedAttnRequest decomposed_attn = 11;\n    LargestElementsRequest largest_elements = 12;",
        ),
    ],
    "python_client/transparent_llm/contract.py": [
        ("from typing import TypeVar", "from typing import NamedTuple, TypeVar"),
        (
            "\nclass TransparentLlm(ABC):",
            '''
class LargestElements(NamedTuple):
    """The largest elements of vectors, in falling order."""

    values: Float[torch.Tensor, "batch pos rank"]
    ids: Int[torch.Tensor, "batch pos rank"]


class TransparentLlm(ABC):''',
        ),
        (
            "\n    @abstractmethod\n    def decomposed_attn(",
            '''
    @abstractmethod
    def largest_elements(self, layer: int) -> LargestElements:
        """The three largest elements of the residual stream as it enters block `layer`, and where they are."""

    @abstractmethod
    def decomposed_attn(''',
        ),
    ],
    "python_client/transparent_llm/client/remote.py": IMPORTED,
    "server/transparent_llm_server/models/transformer_lens.py": IMPORTED,
    "server/transparent_llm_server/models/derived/run.py": [
        (
            "\n    def decomposed_attn(",
            '''
    def largest_elements(self, layer: int) -> tuple[Value, Value]:
        """See the contract."""
        values, ids = self._at(layer)[1].residual_in.topk(3)
        return self._unchanged(Stored(values)), self._unchanged(Stored(ids))

    def decomposed_attn(''',
        ),
    ],
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.egg-info"))
    runpy.run_path(str(ROOT / "scripts" / "generate_stubs.py"))["generator"]()
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

    paths = os.pathsep.join(map(str, (copy / "python_client", copy / "server")))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    tests = copy / "tests" / "architecture"
    tests.mkdir(parents=True)
    for script in ("new_method_script.py", "test_agreement.py"):
        shutil.copy(Path(__file__).with_name(script), tests)
    subprocess.run([sys.executable, tests / "new_method_script.py", copy], check=True, env=environment, cwd=tests)

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
