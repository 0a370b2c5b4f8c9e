"""Documentation is run: its blocks against a server of the demo model, top to bottom, and its links are followed.

```python            runs; all blocks of a file share one namespace
```console           lines that begin with `$ transparent-llm` run and must exit with 0
```python no-run     is compiled only
```console no-run    is read by people only: needs a terminal, another machine, or does not end by itself
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest

from transparent_llm.demo import server_process

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RUN = [README, *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [
    README,
    *ROOT.glob("CONTRIBUTING.md"),
    *ROOT.glob("CHANGELOG.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "clients").glob("*/README.md")),
    ROOT / "tests" / "conformance" / "README.md",
]

FENCE = re.compile(r"^ *(?P<fence>```+)(?P<info>[^`\n]*)\n(?P<code>.*?)^ *(?P=fence)[ `]*$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (?P<command>transparent-llm\b(?:.*\\\n)*.*)$", re.MULTILINE)
ENDLESS = re.compile(r"transparent-llm serve\b(?!.*--help)", re.DOTALL)
LINK = re.compile(r"""\]\(<?([^)\s>]+)|^\[[^\]]+\]:\s*<?([^\s>]+)|(?:href|src)="([^"]+)\"""", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?)(?: +#+)? *$", re.MULTILINE)

RUNNER = """
import json, subprocess, sys

namespace = {"__name__": "__main__"}
for language, path, line, code in json.load(sys.stdin):
    if language == "python":
        exec(compile("\\n" * (line - 1) + code, path, "exec"), namespace)
        continue
    exit_code = subprocess.run(["sh", "-c", code], stdin=subprocess.DEVNULL, timeout=120).returncode
    if exit_code != 0:
        sys.exit(f"{path}:{line}: `{code}` exited with {exit_code}")
"""


@dataclass(frozen=True)
class Block:
    """Code between fences."""

    language: str
    mark: str
    """What follows the language: nothing, or no-run."""

    path: Path
    line: int
    """Of the first line of code."""

    code: str

    @property
    def place(self) -> str:
        return f"{self.path.name}:{self.line}"


@dataclass(frozen=True)
class Step:
    """What is run as a whole: a Python block, or one command of a console block."""

    language: str
    path: Path
    line: int
    code: str


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        language, _, mark = match["info"].strip().partition(" ")
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(language, mark.strip(), path, line, textwrap.dedent(match["code"])))
    return [block for block in found if block.language in {"python", "console"}]


def steps(path: Path) -> Iterator[Step]:
    """Everything in a file that is run, in its order."""
    for block in blocks(path):
        if block.mark == "no-run":
            continue
        if block.language == "python":
            yield Step("python", path, block.line, block.code)
        else:
            for match in COMMAND.finditer(block.code):
                line = block.line + block.code.count("\n", 0, match.start())
                yield Step("console", path, line, re.sub(r"^> ", "", match["command"], flags=re.MULTILINE))


def prose(path: Path) -> str:
    """A file without its blocks of code."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """What can follow a # in a link to this file: headings as GitHub spells them, explicit anchors, or lines."""
    if path.suffix != ".md":
        return {f"L{number + 1}" for number in range(path.read_bytes().count(b"\n"))}
    found = set(re.findall(r'<a (?:id|name)="([^"]+)"', prose(path)))
    for heading in HEADING.findall(prose(path)):
        title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        repeated = (f"{slug}-{number}" for number in range(1, len(found) + 1))
        found.add(slug if slug not in found else next(other for other in repeated if other not in found))
    return found


def broken_links(path: Path, root: Path) -> Iterator[str]:
    text = re.sub(r"`[^`\n]+`", "", prose(path))
    for target in (next(filter(None, groups)) for groups in LINK.findall(text)):
        if re.match(r"[a-z][a-z0-9+.-]*:|//", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        destination = (path.parent / file).resolve() if file else path.resolve()
        if not destination.exists() or not destination.is_relative_to(root.resolve()):
            yield f"{target}: no such file in the project"
        elif anchor and (destination.is_dir() or anchor not in anchors(destination)):
            yield f"{target}: {destination.name} has no such heading or line"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with server_process() as address:
        yield address


@pytest.fixture
def environment(address: str) -> dict[str, str]:
    """A user's shell: the server's address and the command are there, and no other setting of ours."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRANSPARENT_LLM_")}
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    return {**inherited, "TRANSPARENT_LLM_ADDRESS": address, "PATH": path}


def test_readme_has_blocks_that_run() -> None:
    assert list(steps(README)) != []


@pytest.mark.parametrize("path", [path for path in RUN if list(steps(path))], ids=name)
def test_blocks_run_from_top_to_bottom(path: Path, environment: dict[str, str], tmp_path: Path) -> None:
    endless = [f"{path.name}:{step.line}" for step in steps(path) if ENDLESS.match(step.code)]
    assert endless == [], "a server does not end by itself: mark its fence no-run"
    work = json.dumps([(step.language, str(step.path), step.line, step.code) for step in steps(path)])
    command = [sys.executable, "-c", RUNNER]
    process = subprocess.run(command, input=work, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("path", RUN, ids=name)
def test_python_blocks_compile(path: Path) -> None:
    for block in blocks(path):
        if block.language == "python":
            compile("\n" * (block.line - 1) + block.code, str(path), "exec")


@pytest.mark.parametrize("path", RUN, ids=name)
def test_marks_are_known(path: Path) -> None:
    assert [f"{block.place}: {block.mark}" for block in blocks(path) if block.mark not in {"", "no-run"}] == []


@pytest.mark.parametrize("path", LINKING, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    assert list(broken_links(path, ROOT)) == []


SAMPLE = """\
# A title: with `code`

```python
a = 1
```

1. In a list:

   ```console
   $ transparent-llm get logits \\
   >     "a sentence" -o out
   out: logits F32
   $ other-command
   $ transparent-llm health
   ```

```console no-run
$ transparent-llm serve
```

````text
```python
not python
```
````

[good](other.md#two-1) [good](sample.md#a-title-with-code) [good](https://example.org/x.md) `[code](gone.md)`
![bad](gone.png) [bad](#nowhere) <a href="other.md#nowhere">bad</a> [bad](../sample/../../outside.md)

[bad]: gone.md
"""


def test_blocks_are_found(tmp_path: Path) -> None:
    path = tmp_path / "sample.md"
    path.write_text(SAMPLE, encoding="utf-8")
    assert list(steps(path)) == [
        Step("python", path, 4, "a = 1\n"),
        Step("console", path, 10, 'transparent-llm get logits \\\n    "a sentence" -o out'),
        Step("console", path, 14, "transparent-llm health"),
    ]


def test_broken_links_are_found(tmp_path: Path) -> None:
    project = tmp_path / "sample"
    project.mkdir()
    (project / "sample.md").write_text(SAMPLE, encoding="utf-8")
    (project / "other.md").write_text("## Two\n\n## Two\n", encoding="utf-8")
    (tmp_path / "outside.md").touch()
    broken = [line.partition(":")[0] for line in broken_links(project / "sample.md", project)]
    assert broken == ["gone.png", "#nowhere", "other.md#nowhere", "../sample/../../outside.md", "gone.md"]
