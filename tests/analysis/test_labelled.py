"""Results know what their axes are, and become tables, data sets and pages."""

from __future__ import annotations

import dataclasses
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.errors import InvalidRequestError

TOKENS = ["<bos>", " The", "\u202e<b>"]
AXES = (
    Axis("layer", range(2)),
    Axis("pos", [4, 5, 6], {"token": TOKENS}),
    Axis("rank", [0, 1]),
)
PROBABILITIES = torch.arange(6.0).reshape(2, 3) / 8
TOP = torch.arange(12).reshape(2, 3, 2)


def result() -> Labelled:
    return Labelled(
        "lens of a\x1b sentence",
        AXES,
        {"probability": OnAxes(PROBABILITIES, ("layer", "pos")), "token_id": OnAxes(TOP, ("layer", "pos", "rank"))},
    )


def test_a_result_says_shortly_what_it_is() -> None:
    assert repr(result()) == (
        "Labelled('lens of a\\x1b sentence': probability [layer=2 pos=3], token_id [layer=2 pos=3 rank=2])"
    )
    assert str(result()).splitlines() == [
        "lens of a\\x1b sentence",
        "  tensor       axes                    type           values",
        "  probability  [layer=2 pos=3]         torch.float32  0 to 0.625",
        "  token_id     [layer=2 pos=3 rank=2]  torch.int64    0 to 11",
    ]
    odd = Labelled("t", AXES[:1], {"x": OnAxes(torch.tensor([math.nan, 1.0]), ("layer",))})
    assert str(odd).endswith("1 to 1, 1 not finite")
    assert result()["probability"] is PROBABILITIES
    with pytest.raises(InvalidRequestError, match=r"there is no tensor 'x'; there are 'probability', 'token_id'"):
        result()["x"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result().title = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("tensor", "axes", "words"),
    [
        (torch.zeros(3, 3), ("layer", "pos"), r"'x' has shape \[3, 3\], but its axes are layer \(2\), pos \(3\)"),
        (torch.zeros(2), ("head",), r"its axes are head \(not described\)"),
        (torch.zeros(2), (), "its axes are none"),
        (torch.zeros(2, 2), ("layer", "layer"), r"layer \(2\), layer \(2\)"),
    ],
)
def test_axes_must_be_those_of_the_tensor(tensor: torch.Tensor, axes: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        Labelled("t", AXES, {"x": OnAxes(tensor, axes)})


def test_labels_of_an_axis_are_one_for_each_place() -> None:
    with pytest.raises(InvalidRequestError, match="pos label 'token' has 1 entries for 2 places"):
        Axis("pos", range(2), {"token": ["a"]})


def test_two_axes_are_a_grid_and_others_a_table() -> None:
    html = result()._repr_html_()
    assert html.count("<td") == 6
    for value in PROBABILITIES.flatten().tolist():
        assert f'data-value="{value!r}"' in html
    assert "4 &lt;bos&gt;" in html
    assert "\u202e" not in html
    assert "<b>" not in html
    three = Labelled("t", AXES, {"token_id": OnAxes(TOP, ("layer", "pos", "rank"))})
    assert three._repr_html_() == three.table()._repr_html_()


def test_a_table_has_a_row_for_each_place() -> None:
    frame = result().to_pandas()
    assert list(frame.columns) == ["layer", "pos", "token", "rank", "probability", "token_id"]
    assert len(frame) == 12
    for row in frame.itertuples(index=False):
        layer, pos, rank = row.layer, row.pos - 4, row.rank
        assert row.token == TOKENS[pos]
        assert row.probability == PROBABILITIES[layer, pos]
        assert row.token_id == TOP[layer, pos, rank]
    small = result().to_pandas("probability")
    assert list(small.columns) == ["layer", "pos", "token", "probability"]
    assert small["probability"].tolist() == PROBABILITIES.flatten().tolist()


def test_tensors_of_other_axes_are_no_columns_of_one_table() -> None:
    turned = OnAxes(PROBABILITIES.T.to(torch.bfloat16), ("pos", "layer"))
    apart = OnAxes(torch.arange(2.0), ("rank",))
    both = Labelled("t", AXES, {"a": OnAxes(PROBABILITIES, ("layer", "pos")), "b": turned, "c": apart})
    with pytest.raises(InvalidRequestError, match="'c' has axes that others lack"):
        both.to_pandas()
    frame = both.to_pandas("a", "b")
    assert frame["a"].tolist() == frame["b"].tolist() == PROBABILITIES.flatten().tolist()
    assert Labelled("t", (), {}).to_pandas().empty


def test_a_label_that_an_axis_has_too_is_named_after_its_own() -> None:
    axes = (Axis("query_pos", range(1), {"token": ["a"]}), Axis("key_pos", range(2), {"token": ["a", "b"]}))
    made = Labelled("t", axes, {"x": OnAxes(torch.zeros(1, 2), ("query_pos", "key_pos"))})
    assert list(made.to_pandas().columns) == ["query_pos", "token", "key_pos", "key_pos_token", "x"]


def test_a_data_set_has_all_tensors_with_their_axes() -> None:
    pytest.importorskip("xarray")
    data = result().to_xarray()
    assert data["probability"].dims == ("layer", "pos")
    assert data["token_id"].dims == ("layer", "pos", "rank")
    assert data["probability"].values.tolist() == PROBABILITIES.tolist()
    assert data["token_id"].sel(layer=1, pos=5).values.tolist() == TOP[1, 1].tolist()
    assert data["token"].values.tolist() == TOKENS
    assert data["token"].dims == ("pos",)
    assert data.attrs == {"title": "lens of a\x1b sentence"}
    half = Labelled("t", AXES, {"x": OnAxes(PROBABILITIES.bfloat16(), ("layer", "pos"))}).to_xarray()
    assert half["x"].dtype == "float32"


def test_what_is_not_installed_is_named_with_its_extra() -> None:
    script = (
        "import sys\nsys.modules['pandas'] = sys.modules['xarray'] = None\n"
        "from transparent_llm.analysis.labelled import Labelled\nmade = Labelled('t', (), {})\n"
        "for turn in (made.to_pandas, made.to_xarray):\n    try:\n        turn()\n"
        "    except ImportError as error:\n        print(error)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert said.stdout.splitlines() == [
        f"to_{name} requires the [notebook] extra, and {name} is not installed: run pip install 'PATH[notebook]', "
        "where PATH is the checkout or the wheel that the client was installed from"
        for name in ("pandas", "xarray")
    ], said.stderr


def test_a_page_is_whole_by_itself(tmp_path: Path) -> None:
    path = result().save_html(tmp_path / "lens.html")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert result()._repr_html_() in text
    assert "default-src 'none'" in text
    assert 'content="light dark"' in text
    assert "<title>lens of a\\x1b sentence</title>" in text
    assert "http:" not in text
    assert "https:" not in text
    assert os.listdir(tmp_path) == ["lens.html"]


def test_a_page_takes_the_place_of_a_file_and_of_nothing_else(tmp_path: Path) -> None:
    old, link, pipe = tmp_path / "old.html", tmp_path / "link.html", tmp_path / "pipe"
    old.write_text("old")
    old.chmod(0o640)
    link.symlink_to(old)
    os.mkfifo(pipe)
    result().save_html(link)
    assert link.is_symlink()
    assert old.read_text().startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    for path in (pipe, tmp_path, Path(os.devnull)):
        with pytest.raises(InvalidRequestError, match="it is no regular file, which is not written over; name a file"):
            result().save_html(path)
    with pytest.raises(InvalidRequestError, match=r"cannot write .*no/page\.html: .*No such file"):
        result().save_html(tmp_path / "no" / "page.html")
    assert sorted(os.listdir(tmp_path)) == ["link.html", "old.html", "pipe"]


def test_a_page_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    class Broken(Labelled):
        def picture(self) -> str:
            raise KeyboardInterrupt

    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        Broken("t", (), {}).save_html(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]
