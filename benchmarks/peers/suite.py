"""All benchmarks, one after the other, and what they found written into docs/benchmarks.md.

cd benchmarks && ../.venv/bin/python -m peers.suite [--quick] [--threads N] [--device cuda] [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from peers import device, table
from peers.outcome import parsed

_FOLDER = Path(__file__).parents[1]
_DOCS = _FOLDER.parent / "docs"


def modules() -> dict[str, str]:
    """Of all benchmarks by name."""
    return {
        file.stem: _module(file) for folder in (".", "analysis") for file in sorted((_FOLDER / folder).glob("*.py"))
    }


def _module(file: Path) -> str:
    return ".".join(file.relative_to(_FOLDER).with_suffix("").parts)


def measured(module: str, arguments: Sequence[str]) -> table.Line | None:
    """What a benchmark prints last, while all that it prints is shown; None if it fails."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=_FOLDER, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for last in _shown(process.stdout):  # noqa: B007 - the last one counts
            pass
    return json.loads(last) if process.returncode == 0 else None


def _shown(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        print(line, end="", flush=True)
        yield line


def main() -> None:
    known = modules()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)} (default: all)")
    arguments = parsed(parser)
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no benchmarks of that name: {', '.join(sorted(unknown))}")
    flags = ["--threads", str(arguments.threads), "--device", str(device.chosen())]
    flags += ["--quick"] if arguments.quick else []
    failed = []
    for name in arguments.names or known:
        print(f"--- {name}", flush=True)
        line = measured(known[name], flags)
        if line is None:
            failed.append(name)
        else:
            table.add([line], _DOCS / "benchmarks.jsonl", _DOCS / "benchmarks.md")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
