"""The first five minutes in other languages, as LANGUAGES.md shows them. `make clients` builds them and runs this."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from transparent_llm.demo import server_process

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "LANGUAGES.md").read_text(encoding="utf-8")
CLIENTS = ROOT / "clients"


@pytest.fixture(scope="module")
def address(pytestconfig: pytest.Config) -> Iterator[str]:
    if not pytestconfig.getoption("--languages"):
        pytest.skip("needs the clients of other languages, built: make clients")
    with server_process() as address:
        yield address


def block(language: str) -> str:
    """The one in that language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert "127.0.0.1:50051" in code
    return str(code)


def said(command: list[str | Path], **environment: str) -> str:
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=240, cwd=ROOT, env={**os.environ, **environment}
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def typescript(code: str) -> str:
    """It has no types in it, so that Node.js 20 runs it as it is."""
    path = CLIENTS / "typescript" / "build" / "five_minutes.mjs"
    path.parent.mkdir(exist_ok=True)
    path.write_text(code)
    return said(["node", path])


def go(code: str) -> str:
    gopath = CLIENTS / "go" / "build" / "gopath"
    path = gopath / "src" / "five_minutes" / "main.go"
    path.parent.mkdir(exist_ok=True)
    path.write_text(code)
    return said(["go", "run", path], GO111MODULE="off", GOFLAGS="", GOPATH=f"{gopath}:/usr/share/gocode")


def cpp(code: str) -> str:
    folder = CLIENTS / "cpp" / "build"
    source, program = folder / "five_minutes.cc", folder / "five_minutes"
    source.write_text(code)
    libraries = said(["pkg-config", "--libs", "grpc++", "protobuf"]).split()
    here = ["-I", CLIENTS / "cpp" / "include", "-L", folder, "-ltransparent_llm"]
    said(["g++", "-std=c++20", source, "-o", program, *here, *libraries])
    return said([program])


EXAMPLES: dict[str, tuple[Callable[[str], str], list[str]]] = {
    "typescript": (typescript, ["query_pos", "128", "INDEX_OUT_OF_RANGE 4"]),
    "go": (go, ["[query_pos key_pos] [7 7]", "true"]),
    "cpp": (cpp, ["query_pos 7 1", "INDEX_OUT_OF_RANGE 4"]),
}


@pytest.mark.parametrize("language", EXAMPLES)
def test_the_first_five_minutes(language: str, address: str) -> None:
    run, words = EXAMPLES[language]
    answer = run(block(language).replace("127.0.0.1:50051", address))
    assert [word for word in words if word not in answer] == [], answer
