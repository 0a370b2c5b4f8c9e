"""Who imports whom: on paper (import-linter) and in a fresh interpreter (sys.modules)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from support.models.families import save

ROOT = Path(__file__).parents[2]
MODEL_LIBRARIES = {"transformers", "transformer_lens"}
SERVER_SIDE = MODEL_LIBRARIES | {"transparent_llm_server"}


def packages_after(statements: str) -> set[str]:
    """Top-level packages that an interpreter has loaded after these statements."""
    report = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    command = [sys.executable, "-c", f"{statements}\n{report}"]
    return set(json.loads(subprocess.check_output(command, text=True, timeout=120)))


def test_import_contracts_are_kept(tmp_path: Path) -> None:
    command: list[str | Path] = [Path(sysconfig.get_path("scripts"), "lint-imports"), "--cache-dir", tmp_path]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stdout + process.stderr
    summary = re.search(r"Contracts: (\d+) kept, 0 broken", process.stdout)
    assert summary is not None, process.stdout
    written = (ROOT / "pyproject.toml").read_text(encoding="utf-8").count("[[tool.importlinter.contracts]]")
    assert int(summary[1]) == written > 0


def test_client_loads_nothing_of_the_server() -> None:
    loaded = packages_after("import transparent_llm")
    assert {"transparent_llm", "grpc", "torch"} <= loaded, "the probe sees no imports"
    assert loaded & SERVER_SIDE == set()


def test_client_modules_that_start_servers_load_them_lazily() -> None:
    modules = ("cli", "demo", "testing", "integrations")
    loaded = packages_after(f"import {', '.join(f'transparent_llm.{module}' for module in modules)}")
    assert loaded & SERVER_SIDE == set()


def test_server_loads_model_libraries_only_with_a_model(tmp_path: Path) -> None:
    imports = "import transparent_llm_server, transparent_llm_server.app, transparent_llm_server.process.daemon"
    loaded = packages_after(imports)
    assert "transparent_llm_server" in loaded, "the probe sees no imports"
    assert loaded & MODEL_LIBRARIES == set()
    folder = save("gpt2", tmp_path / "gpt2")
    loaded = packages_after(f"{imports}\ntransparent_llm_server.TransformerLensTransparentLlm({str(folder)!r})")
    assert loaded & MODEL_LIBRARIES == MODEL_LIBRARIES, "libraries go by other names, so nothing is proven above"
