"""Pictures that the documentation shows: all are there, small, and drawn by the script that is named beside them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from transparent_llm.analysis.labelled import Labelled
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

ROOT = Path(__file__).parents[2]
SHOWN = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")
MOST_BYTES = 150_000


def test_pictures_of_the_examples_are_those_that_are_drawn() -> None:
    """And what they are drawn of is still made, in words at least: not every machine has a browser."""
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    shown = {(ROOT / "examples" / link).resolve() for link in SHOWN.findall(text)}
    assert shown == set((ROOT / "docs" / "pictures").glob("*.png"))
    for picture in shown:
        data = picture.read_bytes()
        assert data.startswith(b"\x89PNG\r\n")
        assert len(data) < MOST_BYTES
    drawn = runpy.run_path(str(ROOT / "scripts" / "draw_pictures.py"))["pages"](
        TransformerLensTransparentLlm(str(DEMO_MODEL))
    )
    assert {picture.stem for picture in shown} == set(drawn)
    for made in drawn.values():
        found = made()
        labelled = found if isinstance(found, Labelled) else found.labelled()
        assert "<figure" in labelled.picture()


def test_pages_name_no_picture_that_is_not_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]
    links = {page.parent / link for page in pages for link in SHOWN.findall(page.read_text(encoding="utf-8"))}
    assert len(links) >= 6
    assert [link for link in links if not link.is_file()] == []
