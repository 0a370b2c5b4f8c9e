"""Short functions, short modules, telling names, no code from data, no path of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import transparent_llm
import transparent_llm_server
from support.deploy.checkout import ROOT, needs_a_checkout, project_files

PACKAGES = [Path(package.__path__[0]) for package in (transparent_llm, transparent_llm_server)]
MODULES = [(package, path) for package in PACKAGES for path in package.rglob("*.py") if path.parent.name != "_gen"]
TREES = {
    str(path.relative_to(package.parent)): ast.parse(path.read_text(encoding="utf-8")) for package, path in MODULES
}

LONGEST_FUNCTION = 60
SHORT_FUNCTION = 30
LONGEST_MODULE = 320

VAGUE_NAMES = {stem + plural for stem in ("util", "common", "helper", "manager") for plural in ("", "s")}
CODE_RUNNERS = {"eval", "exec", "builtins.eval", "builtins.exec", "torch.load", "torch.serialization.load"}
UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
MACHINE_FOLDERS = ("root", "work", "opt")


def lengths() -> dict[str, int]:
    """Number of lines of every function, methods and inner ones included; decorators do not count."""
    return {
        f"{path}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def dangers(tree: ast.Module) -> Iterator[str]:
    """What runs code that comes as data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, (ast.Name, ast.Attribute, ast.keyword)):
            names = [ast.unparse(node)]
        else:
            continue
        yield from filter(is_danger, names)


def is_danger(name: str) -> bool:
    trusts_strangers = name.startswith("trust_remote_code=") and name != "trust_remote_code=False"
    return name in CODE_RUNNERS or name.split(".")[0] in UNPICKLERS or trusts_strangers


LOADERS = {"from_pretrained", "from_config", "boot_transformers"}


def trusting_calls(tree: ast.Module) -> list[str]:
    """Calls that load something of Hugging Face without saying that no code that lies there is to be run. Without a
    word about it, transformers asks on standard input."""
    return [
        f"{node.lineno}: {ast.unparse(node.func)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LOADERS
        and "trust_remote_code=False" not in [ast.unparse(keyword) for keyword in node.keywords]
    ]


def machine_paths(data: bytes) -> list[str]:
    """Absolute paths below a folder that other machines do not have, or have for something else."""
    pattern = rf"(?<![\w.~$}}-])/(?:{'|'.join(MACHINE_FOLDERS)})/[\w.-]*".encode()
    return [match.decode(errors="replace") for match in re.findall(pattern, data)]


def test_no_function_is_long() -> None:
    assert {name: lines for name, lines in lengths().items() if lines > LONGEST_FUNCTION} == {}


def test_nine_functions_in_ten_are_short() -> None:
    longer = {name: lines for name, lines in lengths().items() if lines > SHORT_FUNCTION}
    assert len(longer) <= len(lengths()) / 10, longer


def test_no_module_is_long() -> None:
    sizes = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for _, path in MODULES}
    assert {path: lines for path, lines in sizes.items() if lines > LONGEST_MODULE} == {}


def test_no_module_has_a_vague_name() -> None:
    assert [
        path for path in TREES if VAGUE_NAMES & {part.strip("_") for part in Path(path).with_suffix("").parts}
    ] == []


def test_data_is_never_run_as_code() -> None:
    found = {path: list(dangers(tree)) for path, tree in TREES.items()}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import torch, pickle as p",
        "from pickle import loads",
        "from torch import load",
        "torch.load(path)",
        "load = torch.load",
        "eval(text)",
        "exec(text)",
        "builtins.eval(text)",
        "Model.from_pretrained(name, trust_remote_code=True)",
        "Model.from_pretrained(name, trust_remote_code=flag)",
    ],
)
def test_dangers_are_seen(source: str) -> None:
    assert list(dangers(ast.parse(source))) != []


def test_what_only_looks_dangerous_is_let_pass() -> None:
    harmless = "model.eval()\nfrom_pretrained(name, trust_remote_code=False)\nsafetensors.torch.load_file(path)"
    assert list(dangers(ast.parse(harmless))) == []


@needs_a_checkout
def test_nothing_that_is_loaded_may_run_code() -> None:
    """Also in scripts, benchmarks and tests, which load folders that people give them."""
    files = [ROOT / name for name in project_files() if str(name).endswith(".py")]
    assert ROOT / "scripts/train_demo_model.py" in files
    found = {str(path.relative_to(ROOT)): trusting_calls(ast.parse(path.read_text(encoding="utf-8"))) for path in files}
    assert {path: calls for path, calls in found.items() if calls} == {}


def test_a_call_that_does_not_say_so_is_seen() -> None:
    source = "A.from_pretrained(x)\nB.from_config(x, trust_remote_code=None)\nC.boot_transformers(x, **more)"
    assert len(trusting_calls(ast.parse(source))) == 3
    assert trusting_calls(ast.parse("A.from_pretrained(x, trust_remote_code=False)")) == []


@needs_a_checkout
def test_no_file_names_a_path_of_one_machine() -> None:
    files = [ROOT / name for name in project_files()]
    assert ROOT / "pyproject.toml" in files
    found = {str(path.relative_to(ROOT)): machine_paths(path.read_bytes()) for path in files}
    assert {path: paths for path, paths in found.items() if paths} == {}


@pytest.mark.parametrize("folder", MACHINE_FOLDERS)
def test_paths_of_one_machine_are_seen(folder: str) -> None:
    assert machine_paths(f"see `/{folder}/a.txt`, file:///{folder}/b".encode()) == [f"/{folder}/a.txt", f"/{folder}/b"]
    assert machine_paths(f"https://example.org/{folder}/a and build/{folder}/b and ~/{folder}/c".encode()) == []
