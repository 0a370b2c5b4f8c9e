"""The page in Chromium: its size, its first paint, and whether a run of 200 tokens and 24 layers stays smooth.

The longest time between two frames while the graph is moved and scrolled, beside 100 ms; the size of what the server
sends, compressed, beside 300 KiB; a control of the graph beside 100 ms.

    cd benchmarks && ../.venv/bin/python -m page [--quick]
"""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

from peers import shapes
from peers.outcome import Goal, is_quick, progress, report
from peers.serving import paged_server_process
from transformers import GPT2Config

from transparent_llm_server.http.files import BUILT

GOAL = Goal("lower", 1.0)
LONGEST_FRAME_MS, LARGEST_KB = 100.0, 300.0
SPREAD = 0.1
"""Of weights: heads look at few tokens each, so that the graph has many edges."""

MEASURE = Path(__file__).parents[1] / "page" / "benchmark" / "measure.js"


def bundle_kb() -> float:
    """All files of the page as they are sent compressed, in KiB."""
    return sum(len(gzip.compress(file.read_bytes())) for file in BUILT.iterdir()) / 2**10


def measured(config: GPT2Config, n_tokens: int, rounds: int) -> dict[str, Any]:
    """As the script in the browser says."""
    with shapes.saved(config, SPREAD) as folder, paged_server_process("--model", f"large={folder}") as (_, page):
        progress(f"{n_tokens} tokens, {config.n_layer} layers in Chromium ...")
        command = ["node", str(MEASURE), page, str(n_tokens), str(rounds)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output))


def main() -> None:
    quick = is_quick(__doc__)
    n_layers, n_tokens = (6, 60) if quick else (24, 200)
    config = GPT2Config(n_layer=n_layers, n_embd=256, n_head=2, vocab_size=5000, bos_token_id=0, eos_token_id=0)
    found = measured(config, n_tokens, 3 if quick else 9)
    size = bundle_kb()
    longest = max(found[what]["longest_ms"] for what in ("moving", "scrolling", "lens_scrolling"))
    report(
        "page",
        GOAL.figures(longest / LONGEST_FRAME_MS, and_also=size <= LARGEST_KB and found["control_ms"] <= 100.0),
        quick=f"{n_layers} of the 24 layers, {n_tokens} of the 200 tokens" if quick else None,
        bundle_kb=round(size, 1),
        **found,
    )


if __name__ == "__main__":
    main()
