"""Generate the Python stubs from protos/ into python_client/transparent_llm/wire/_gen.

    python scripts/generate_stubs.py           # write them
    python scripts/generate_stubs.py --check   # fail if the checked-in ones differ

The generator is pinned to an old release on purpose: its output runs on protobuf 5, 6 and 7, while that of
current generators refuses every older runtime (docs/adr/0003). It lives in an environment of its own.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
TARGET = ROOT / "python_client" / "transparent_llm" / "wire" / "_gen"
ENVIRONMENT = ROOT / ".venv-gen"
REQUIREMENTS = ["grpcio-tools==1.62.3", "grpcio==1.62.3", "protobuf==4.25.8", "setuptools==80.9.0"]


def generator() -> Path:
    """The Python of the pinned generator's environment, made on first use."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "ready").exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
        (ENVIRONMENT / "ready").touch()
    return python


def generate(target: Path) -> None:
    """Write the stubs below `target`, importing one another from inside the package."""
    protos = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.rglob("*.proto"))]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi")]
    command = [generator(), "-m", "grpc_tools.protoc", f"-I{PROTOS}", *outputs, *protos]
    subprocess.run(command, check=True)
    for path in sorted(target.rglob("*.py*")):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"^from transparent_llm\.v1 import", "from . import", text, flags=re.MULTILINE)
        path.write_text(text, encoding="utf-8")


def contents(folder: Path) -> dict[str, str]:
    """Generated files by name, wherever the generator put them."""
    return {path.name: path.read_text(encoding="utf-8") for path in folder.rglob("*_pb2*.py*") if path.suffix != ".pyc"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the stubs are not current")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = contents(Path(folder))
    if check:
        held = contents(TARGET)
        stale = sorted(name for name in fresh.keys() | held.keys() if fresh.get(name) != held.get(name))
        print(f"stubs differ from protos/: {', '.join(stale)}; run `make gen`" if stale else "stubs are current")
        return 1 if stale else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in fresh.items():
        (TARGET / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
