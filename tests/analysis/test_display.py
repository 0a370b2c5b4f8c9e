"""Pictures: their numbers are the tensor's, their words act nowhere, their size is bounded."""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch

from transparent_llm.analysis.display.graph import _COLOURS, Edge, Node, graph_svg
from transparent_llm.analysis.display.grid import grid_html
from transparent_llm.analysis.display.heatmap import attention_html, heatmap_svg
from transparent_llm.analysis.display.markup import page
from transparent_llm.analysis.display.pixels import png
from transparent_llm.analysis.display.scale import Colour, Scale
from transparent_llm.analysis.display.tokens import coloured_tokens_html
from transparent_llm.errors import InvalidRequestError

HOSTILE = [
    "<script>alert(1)</script>",
    "</td></svg></style><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "\u202eevil\u2066",
    "a\u200bb\ufeffc",
    "line\nbreak\r\t",
    "&amp;&lt;",
    "\x00\x1b[31m\x07",
    "\ud800",
    " עברית ",
    "{{7*7}} ${x}",
    "]]>--><!--",
    "x" * 100_000,
]
INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
TAGS = {
    *("html", "head", "meta", "title", "body", "figure", "figcaption", "div", "p", "bdi", "span", "br", "img"),
    *("table", "tr", "th", "td", "svg", "g", "rect", "text", "line", "circle"),
}
ATTRIBUTES = {
    *("style", "title", "alt", "src", "width", "height", "role", "aria-label", "lang", "charset", "name", "content"),
    *("http-equiv", "scope", "cellpadding", "data-value", "data-weight", "data-head", "xmlns", "viewbox", "transform"),
    *("fill", "stroke", "stroke-width", "stroke-opacity", "opacity", "font-family", "font-size", "text-anchor"),
    *("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r"),
}
EMPTY = {"br", "img", "meta"}


class Parsed(HTMLParser):
    """Elements in order, each with its attributes and text; what a picture may not have fails at once."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[int] = []
        self.feed(markup)
        self.close()
        assert self._open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        attributes = {name: value or "" for name, value in attrs}
        assert attributes.keys() <= ATTRIBUTES
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert "url(" not in attributes.get("style", "")
        self.elements.append((tag, attributes, []))
        if tag not in EMPTY:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            for index in self._open:
                self.elements[index][2].append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def of(self, tag: str) -> list[tuple[dict[str, str], str]]:
        return [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]

    def values(self, tag: str, name: str = "data-value") -> list[float]:
        return [float(attributes[name]) for attributes, _ in self.of(tag) if name in attributes]


def labels(n: int, name: str = "") -> list[str]:
    return [f"{name}{i}" for i in range(n)]


def pictures(tokens: list[str]) -> dict[str, str]:
    """One of each kind with these strings everywhere."""
    n = len(tokens)
    generator = torch.Generator().manual_seed(0)
    square = torch.rand(n, n, generator=generator)
    nodes = [Node(token + str(i), i, i, token, token) for i, token in enumerate(tokens)]
    edges = [Edge(nodes[i].name, nodes[i + 1].name, 1.0, tokens[i]) for i in range(n - 1)]
    texts = [tokens] * n
    return {
        "grid": grid_html(
            square, title=tokens[0], rows=tokens, columns=tokens, cells=texts, notes=texts, row_axis=tokens[1]
        ),
        "heatmap": heatmap_svg(square, title=tokens[1], rows=tokens, columns=tokens, value_name=tokens[0]),
        "attention": attention_html(square.expand(2, n, n), title=tokens[0], queries=tokens, heads=tokens[:2]),
        "pixels": attention_html(
            torch.rand(2, 150, 150),
            title=tokens[1],
            queries=(tokens * 150)[:150],
            heads=tokens[:2],
            value_name=tokens[0],
        ),
        "tokens": coloured_tokens_html(tokens, square[0], title=tokens[1], notes=tokens, value_name=tokens[1]),
        "graph": graph_svg(nodes, edges, title=tokens[0], tokens=tokens, layers=tokens),
    }


@pytest.mark.parametrize("kind", ["grid", "heatmap", "attention", "pixels", "tokens", "graph"])
def test_words_of_strangers_act_nowhere(kind: str) -> None:
    picture = pictures(HOSTILE)[kind]
    parsed = Parsed(page(HOSTILE[0], picture))
    shown = "".join(text for _, text in parsed.of("html")) + "".join(str(item) for _, item, _ in parsed.elements)
    assert not INVISIBLE.search(picture.replace("\n", ""))
    assert "<script>alert(1)" in shown, "it is there, as text"
    assert len(picture) < 1_000_000
    picture.encode()


@pytest.mark.parametrize("kind", ["heatmap", "graph"])
def test_an_svg_is_well_formed_and_has_words_for_who_does_not_see_it(kind: str) -> None:
    root = ElementTree.fromstring(pictures(HOSTILE)[kind])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == root[0].text != ""
    assert root[0].tag.endswith("title")


def test_a_grid_has_the_tensor() -> None:
    values = torch.randn(7, 9)
    values[2, 3], values[4, 5] = math.inf, math.nan
    texts = [[f"{row}.{column}" for column in range(9)] for row in range(7)]
    picture = grid_html(
        values, title="lens", rows=labels(7), columns=labels(9, " t"), cells=texts, notes=texts, value_name="logit"
    )
    parsed = Parsed(picture)
    got = torch.tensor(parsed.values("td"), dtype=torch.float64).reshape(7, 9)
    torch.testing.assert_close(got, values.double(), rtol=0, atol=0, equal_nan=True)
    cells = parsed.of("td")
    assert [text for _, text in cells] == [text for row in texts for text in row]
    assert cells[10][0]["title"] == f"logit {values[1, 1]:.4g}: layer 1, pos  t1\n1.1"
    assert cells[21][0]["title"].startswith("logit inf: layer 2")
    assert [text for attributes, text in parsed.of("th") if attributes.get("scope") == "col"] == labels(9, " t")
    assert [text for attributes, text in parsed.of("th") if attributes.get("scope") == "row"] == labels(7)
    assert parsed.of("figcaption") == [({}, "lens")]


def test_a_grid_can_have_its_first_row_at_the_bottom() -> None:
    values = torch.arange(6.0).reshape(3, 2)
    picture = Parsed(grid_html(values, title="t", rows=labels(3), columns=labels(2), upwards=True))
    assert picture.values("td") == [4, 5, 2, 3, 0, 1]
    assert [text for attributes, text in picture.of("th") if attributes.get("scope") == "row"] == ["2", "1", "0"]


def test_a_large_grid_is_cut_and_says_so() -> None:
    values = torch.rand(1000, 100)
    picture = grid_html(values, title="t", rows=labels(1000), columns=labels(100))
    parsed = Parsed(picture)
    kept = [*range(40), *range(959, 1000)]
    got = torch.tensor(parsed.values("td"), dtype=torch.float64).reshape(81, 100)
    assert torch.equal(got, values[kept].double())
    assert parsed.of("p") == [
        ({}, "Not all is shown: 919 of 1,000 along layer (40 to 958) left out. The tensors have all of it.")
    ]
    assert len(picture) < 2_000_000
    wide = Parsed(grid_html(torch.rand(3, 5000), title="t", rows=labels(3), columns=labels(5000)))
    assert len(wide.of("td")) == 3 * 128
    assert "4,872 of 5,000 along pos (64 to 4935) left out" in wide.of("p")[0][1]


def test_a_heatmap_has_the_tensor() -> None:
    values = torch.randn(5, 6)
    parsed = Parsed(heatmap_svg(values, title="scores", rows=labels(5), columns=labels(6, "c"), value_name="score"))
    assert torch.equal(torch.tensor(parsed.values("rect"), dtype=torch.float64).reshape(5, 6), values.double())
    assert f"score {values[1, 2]:.4g}: row 1, column 2 c2" in [text for _, text in parsed.of("title")]
    cut = heatmap_svg(torch.rand(200, 3), title="t", rows=labels(200), columns=labels(3))
    assert "72 of 200 along row (64 to 135) left out" in cut
    assert len(Parsed(cut).values("rect")) == 128 * 3


def test_all_heads_are_side_by_side_with_their_numbers() -> None:
    patterns = torch.rand(4, 6, 6).tril()
    parsed = Parsed(attention_html(patterns, title="layer 3", queries=labels(6, "t")))
    heads = [attributes["data-head"] for attributes, _ in parsed.of("figure") if "data-head" in attributes]
    assert heads == ["0", "1", "2", "3"]
    assert len(parsed.of("svg")) == 4
    squares = [attributes for attributes, _ in parsed.of("rect") if "data-value" in attributes]
    assert len(squares) == 4 * 21, "what is 0 is the ground"
    got = torch.zeros(4, 6, 6, dtype=torch.float64)
    for at, square in enumerate(squares):
        got[at // 21, int(square["y"]), int(square["x"])] = float(square["data-value"])
    assert torch.equal(got, patterns.double())
    assert f"attention {patterns[0, 2, 1]:.4g}: from 2 t2 to 1 t1" in [text for _, text in parsed.of("title")]


def unfiltered(data: bytes) -> torch.Tensor:
    """Pixels of such a PNG file, by its format's definition."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, width, height = 8, b"", 0, 0
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + body),)
        at += 12 + size
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
            assert body[8:] == b"\x08\x02\x00\x00\x00"
        packed += body if kind == b"IDAT" else b""
    lines = torch.frombuffer(bytearray(zlib.decompress(packed)), dtype=torch.uint8).reshape(height, 1 + 3 * width)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def test_many_squares_become_pixels_with_the_colours_of_the_numbers() -> None:
    patterns = torch.rand(3, 100, 100)
    parsed = Parsed(attention_html(patterns, title="layer 3", queries=labels(100, "t")))
    images = [attributes for attributes, _ in parsed.of("img")]
    assert len(images) == 3
    for head, image in enumerate(images):
        pixels = unfiltered(base64.b64decode(image["src"].partition(",")[2]))
        assert torch.equal(pixels, Scale(0.0, 1.0).colours(patterns[head]))
        row, column = divmod(int(patterns[head].argmax()), 100)
        largest = f"{float(patterns[head, row, column]):.4g}"
        assert (
            image["alt"]
            == f"attention, head {head}: largest attention {largest}, from {row} t{row} to {column} t{column}"
        )


def test_very_many_pixels_are_cut() -> None:
    picture = attention_html(torch.rand(300, 70, 70), title="t", queries=labels(70))
    parsed = Parsed(picture)
    assert len(parsed.of("img")) == 256
    assert parsed.of("p")[0][1] == (
        "Not all is shown: 44 of 300 along head (128 to 171) left out; 8 of 70 along query_pos (31 to 38) left out; "
        "8 of 70 along key_pos (31 to 38) left out. The tensors have all of it."
    )
    assert len(picture) < 6_000_000


def test_colours_of_a_picture_are_bytes_of_its_file() -> None:
    colours = torch.arange(2 * 5 * 3, dtype=torch.uint8).reshape(2, 5, 3)
    assert torch.equal(unfiltered(png(colours)), colours)


def test_tokens_have_their_numbers_and_lines() -> None:
    tokens, values = ["The", " cat", "\n", " sat"], torch.tensor([-0.5, -3.25, math.nan, -0.001])
    parsed = Parsed(
        coloured_tokens_html(tokens, values, title="t", value_name="log-probability", notes=["a", "b", "c", "d"])
    )
    spans = parsed.of("span")
    assert [text for _, text in spans] == ["The", " cat", "\\n", " sat"]
    assert str([float(attributes["data-value"]) for attributes, _ in spans]) == str(values.double().tolist())
    assert spans[1][0]["title"] == "log-probability -3.25: pos 1 ' cat'\nb"
    assert len(parsed.of("br")) == 1
    cut = coloured_tokens_html(labels(5000), torch.rand(5000), title="t")
    assert len(Parsed(cut).of("span")) == 4096
    assert "904 of 5,000 along pos (2048 to 2951) left out" in cut


def small_graph() -> tuple[list[Node], list[Edge]]:
    nodes = [
        Node(f"{row}.{column}", row, column, "residual", f"layer {row}") for row in range(3) for column in range(4)
    ]
    edges = [
        Edge(
            f"{row}.{source}",
            f"{row + 1}.{target}",
            (1 + source) / (2 + target),
            "attention" if source < target else "residual",
        )
        for row in range(2)
        for target in range(4)
        for source in range(target + 1)
    ]
    return [*nodes, Node("ffn", 1.5, 2, "ffn")], [*edges, Edge("1.2", "ffn", 0.25, "ffn")]


def test_a_graph_has_its_edges_with_weights() -> None:
    nodes, edges = small_graph()
    parsed = Parsed(graph_svg(nodes, edges, title="graph", tokens=labels(4, "t"), layers=["in", "l0", "l1"]))
    assert sorted(parsed.values("line", "data-weight")) == sorted(edge.weight for edge in edges)
    assert len(parsed.of("circle")) == 12
    places = {text: (float(a["cx"]), float(a["cy"])) for a, text in parsed.of("circle")}
    lowest, highest = places["layer 0"], places["layer 2"]
    assert lowest[1] > highest[1], "layers go up"
    drawn = {text: attributes for attributes, text in parsed.of("line")}
    assert drawn["ffn 0.25: layer 1 to ffn"]["data-weight"] == "0.25"
    widths = [(float(a["data-weight"]), float(a["stroke-width"])) for a, _ in parsed.of("line")]
    assert widths == sorted(widths), "the heaviest are drawn last, and widest"
    shown = [text for _, text in parsed.of("text")]
    assert {"in", "l0", "l1", "0 t0", "3 t3", "attention", "residual", "ffn"} <= {*shown}


def test_the_heaviest_edges_of_a_large_graph_are_drawn() -> None:
    n = 150
    nodes = [Node(f"{row}.{column}", row, column) for row in range(2) for column in range(n)]
    edges = [Edge(f"0.{s}", f"1.{t}", float(s * n + t)) for t in range(n) for s in range(t + 1)]
    picture = graph_svg(nodes, edges, title="t", tokens=labels(n), layers=["a", "b"])
    kept = {*range(64), *range(86, 150)}
    weights = sorted((s * n + t for t in kept for s in kept if s <= t), reverse=True)[:4000]
    assert sorted(Parsed(picture).values("line", "data-weight"), reverse=True) == weights
    words = Parsed(picture).of("text")[-1][1]
    assert "22 of 150 along pos (64 to 85) left out" in words
    assert "44 of 300 nodes left out" in words
    assert (
        f"{len(edges) - 4000:,} of {len(edges):,} edges left out, those drawn weigh at least {weights[-1]:.4g}" in words
    )
    assert len(picture) < 2_000_000


@pytest.mark.parametrize(
    ("nodes", "edges", "words"),
    [
        ([Node("a", 0, 2)], [], r"node 'a' is at column 2, row 0, outside of 2 columns and 1 rows"),
        ([Node("a", -1, 0)], [], "outside"),
        ([Node("a", 0, 0), Node("a", 0, 1)], [], "two nodes are named 'a'"),
        ([Node("a", 0, 0)], [Edge("a", "b", 1.0)], "an edge leads to 'b', which is no node"),
        ([Node("a", 0, 0)], [Edge("a", "a", -1.0)], "from 'a' to 'a' weighs -1.0; a weight is a number from 0 on"),
        ([Node("a", 0, 0)], [Edge("a", "a", math.nan)], "weighs nan"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(nodes: list[Node], edges: list[Edge], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        graph_svg(nodes, edges, title="t", tokens=["a", "b"], layers=["l"])


def test_labels_must_be_one_for_each_place() -> None:
    with pytest.raises(InvalidRequestError, match=r"rows has 2 entries for 3 places: give one for each"):
        grid_html(torch.rand(3, 2), title="t", rows=labels(2), columns=labels(2))
    with pytest.raises(InvalidRequestError, match=r"cells\[1\] has 1 entries for 2 places"):
        grid_html(torch.rand(2, 2), title="t", rows=labels(2), columns=labels(2), cells=[["a", "b"], ["c"]])
    with pytest.raises(InvalidRequestError, match=r"values must have 2 axes, got shape \[3\]"):
        grid_html(torch.rand(3), title="t", rows=labels(3), columns=labels(1))
    with pytest.raises(InvalidRequestError, match="values must be numbers in 2 axes"):
        heatmap_svg([["a"]], title="t", rows=["a"], columns=["b"])
    with pytest.raises(InvalidRequestError, match="keys has 1 entries for 2 places"):
        attention_html(torch.rand(1, 2, 2), title="t", queries=labels(2), keys=labels(1))


def test_nothing_to_show_is_shown() -> None:
    for picture in (
        grid_html(torch.rand(0, 0), title="t", rows=[], columns=[]),
        heatmap_svg(torch.rand(0, 3), title="t", rows=[], columns=labels(3)),
        attention_html(torch.rand(0, 0, 0), title="t", queries=[]),
        coloured_tokens_html([], [], title="t"),
        graph_svg([], [], title="t", tokens=[], layers=[]),
    ):
        Parsed(picture)


def light(part: int) -> float:
    share = part / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def contrast(one: str, other: str) -> float:
    """By WCAG 2."""
    luminances = [
        0.2126 * light(int(colour[1:3], 16))
        + 0.7152 * light(int(colour[3:5], 16))
        + 0.0722 * light(int(colour[5:7], 16))
        for colour in (one, other)
    ]
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


@pytest.mark.parametrize("scale", [Scale(0.0, 1.0), Scale(-1.0, 1.0, diverges=True)])
def test_ink_is_readable_on_every_colour(scale: Scale) -> None:
    values = torch.cat([torch.linspace(scale.low - 0.1, scale.high + 0.1, 1000), torch.tensor([math.nan, math.inf])])
    colours = [Colour(*colour) for colour in scale.colours(values).tolist()]
    assert min(contrast(colour.fill, colour.ink) for colour in colours) >= 4.5


def test_edges_are_seen_on_light_and_on_dark_ground() -> None:
    for colour in _COLOURS:
        assert min(contrast(colour, "#ffffff"), contrast(colour, "#111111")) >= 3


def test_colours_go_with_the_numbers() -> None:
    up = Scale.of(torch.tensor([0.0, 0.5, 1.0, math.nan]))
    assert (up.low, up.high, up.diverges) == (0.0, 1.0, False)
    reds = up.colours(torch.tensor([0.0, 0.5, 1.0]))[:, 0].tolist()
    assert reds == [247, 128, 8]
    both = Scale.of(torch.tensor([-2.0, 1.0]))
    assert (both.low, both.high, both.diverges) == (-2.0, 2.0, True)
    assert both.colours(torch.tensor([-2.0, 0.0, 2.0])).tolist() == [[178, 24, 43], [247, 247, 247], [33, 102, 172]]
    assert up.colours(torch.tensor([math.nan])).tolist() == [[138, 138, 138]]
    assert Scale.of(torch.tensor([0.5]), high=4.0) == Scale(0.0, 4.0)
