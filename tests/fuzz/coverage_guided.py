"""One harness, guided by the coverage of what it runs: `python -m fuzz.coverage_guided NAME FOLDER -max_total_time=5`.

What follows the name goes to libFuzzer: a folder of inputs, which is made if it is not there, and flags.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["transparent_llm.wire", "transparent_llm.quoting", "transparent_llm.selection"]
):
    from fuzz.harness import HARNESSES, MEANT, seeds


def main(name: str, folder: str, *flags: str) -> None:
    harness, inputs = HARNESSES[name], Path(folder)
    inputs.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (inputs / f"seed{number}").write_bytes(seed)

    def run(data: bytes) -> None:
        with contextlib.suppress(*MEANT):
            harness(data)

    for seed in seeds(name):  # what is loaded for the first input takes no time of the others
        run(seed)
    atheris.Setup([sys.argv[0], folder, *flags], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
