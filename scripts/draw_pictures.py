"""Draw docs/pictures: what the notebooks of examples/ show, of the embedded demo model.

    .venv/bin/python scripts/draw_pictures.py [FOLDER]

A headless Chromium, at /usr/bin/chromium or at CHROMIUM, photographs the pages that `save_html` writes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
KINGS = "My lord, the king of France; my lord, the king of"
MARGIN, WIDEST = 16, 1100
_SIZE = re.compile(r'data-width="(\d+)" data-height="(\d+)"')
_POLICY = re.compile("<meta http-equiv[^>]*>")
"""Of the pages, which run no script; here one measures them."""

_MEASURE = f"""<script>
document.body.style.cssText += "; margin: 0; padding: {MARGIN}px; display: inline-block; max-width: {WIDEST}px";
const box = document.body.getBoundingClientRect();
document.documentElement.dataset.width = Math.ceil(box.width);
document.documentElement.dataset.height = Math.ceil(box.height);
</script>"""


def pages(llm: TransformerLensTransparentLlm) -> dict[str, Callable[[], Any]]:
    """By the names of the pictures: what is shown, each of a run of its own."""
    return {
        "logit_lens": lambda: of(llm, KINGS).logit_lens(k=3),
        "attribution": lambda: of(llm, KINGS).attribution(" the", minus=" this"),
        "attention": lambda: twice(llm).attention_matrices(1),
        "surprise": lambda: twice(llm).token_logprobs(),
        "contribution_graph": lambda: of(llm, KINGS).contribution_graph(threshold=0.04).paths(-1),
    }


def of(llm: TransformerLensTransparentLlm, sentence: str) -> TransformerLensTransparentLlm:
    llm.run([sentence])
    return llm


def twice(llm: TransformerLensTransparentLlm) -> TransformerLensTransparentLlm:
    """Random tokens, said twice."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.randint(1, llm.model_info().d_vocab, (16,), generator=generator).tolist()
    llm.run_tokens([[*llm.to_tokens("a")[:1].tolist(), *unit, *unit]])
    return llm


def photograph(page: Path, picture: Path) -> None:
    """A page, cut to what it shows."""
    shown = _POLICY.sub("", page.read_text(encoding="utf-8"))
    page.write_text(shown + _MEASURE, encoding="utf-8")
    found = _SIZE.search(browse(page, f"--window-size={WIDEST},2000", "--dump-dom"))
    if found is None:
        raise SystemExit(f"{CHROMIUM} did not say how large {page} is")
    browse(page, f"--window-size={found[1]},{found[2]}", "--hide-scrollbars", f"--screenshot={picture}")


def browse(page: Path, *arguments: str) -> str:
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *arguments]
        return subprocess.run(
            [CHROMIUM, *options, page.as_uri()], check=True, capture_output=True, text=True, timeout=120
        ).stdout


def main(folder: Path = PICTURES) -> None:
    llm = TransformerLensTransparentLlm(str(DEMO_MODEL))
    with tempfile.TemporaryDirectory() as name:
        for title, shown in pages(llm).items():
            photograph(shown().save_html(Path(name) / f"{title}.html"), folder / f"{title}.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
