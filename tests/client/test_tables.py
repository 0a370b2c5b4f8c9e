"""What people see of a server, a model and a run: tables as text and as HTML, in which nothing of a server's acts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.servers.servers import served
from transparent_llm import RemoteTransparentLlm
from transparent_llm.contract import ModelInfo
from transparent_llm.description import ModelDescription, ModelState
from transparent_llm.table import Table


@pytest.fixture(scope="module")
def llm() -> RemoteTransparentLlm:  # type: ignore[misc]
    with served() as remote:
        yield remote


def test_a_table_lines_up_its_columns() -> None:
    table = Table.of("some", ("name", "n"), [("a", 1), ("long one", 22)])
    assert str(table) == repr(table) == "some\n  name      n\n  a         1\n  long one  22"


def test_nothing_in_a_cell_reaches_a_terminal_or_a_page() -> None:
    table = Table.of("\x1b[2J", (), [("<script>alert(1)</script>", "\x1b[31m")])
    assert "\x1b" not in str(table)
    html = table._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in html


def test_what_is_long_is_cut() -> None:
    table = Table.of("t", (), [("x" * 1000,)] * 3000)
    assert len(str(table)) < 2000 * 240
    assert str(table).endswith("... 1000 more rows")
    assert "... 1000 more rows" in table._repr_html_()


def test_a_description_is_a_table(llm: RemoteTransparentLlm) -> None:
    model = llm.describe()
    text = str(model)
    assert text.startswith("model tiny\n")
    for line in ("layers, heads", "2, 4", "d_model, d_ffn, d_vocab", "64, 256, 500", model.digest):
        assert line in text
    assert "check logits_vs_huggingface" in text
    assert "<td" in model._repr_html_()


def test_a_model_that_was_never_loaded_shows_what_is_known() -> None:
    never = ModelDescription(ModelInfo("big", 0, 0, 0, 0, 0), "", state=ModelState.LOADING, detail="reading weights")
    assert str(never) == "model big\n  state  loading reading weights"
    assert "aliases  a, b" in str(replace(never, aliases=("a", "b")))


def test_a_server_is_a_table(llm: RemoteTransparentLlm) -> None:
    info = llm.server_info()
    title, head, row = str(info).splitlines()
    assert title.startswith(f"server {info.server_version}, API {info.api_version}; 0 runs stored")
    assert head.split() == ["model", "state", "architecture", "parameters", "layers", "device"]
    assert row.split()[:2] == ["tiny", "loaded"]
    assert "<th>architecture</th>" in info._repr_html_()
