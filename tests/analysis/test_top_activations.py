"""The places of a data set where neurons, heads and directions are largest, beside all reads sorted by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from support.models.families import D_MODEL
from support.models.tensors import assert_same_bits
from support.servers.servers import Listener, served, tiny
from transparent_llm import RemoteTransparentLlm, TransparentLlm
from transparent_llm.analysis.dataset.rows import Rows
from transparent_llm.analysis.dataset.top_places import TopPlaces
from transparent_llm.analysis.top_activations import top_activations, top_activations_by_part
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError

TEXTS = [
    "the cat sat on the mat",
    "a",
    "What say you, my lord? The king of France is at the door, and many others with him",
    "<script>alert('x')</script> & <b>bold</b>",
    "To be or not to be, that is the question",
    "the cat sat on the mat",
    "\n\n",
]
IDS = [[5], [1, 2, 3, 4, 5], [6], list(range(10, 40)), [1, 2, 3, 4, 5]]


@pytest.fixture(scope="module")
def remote() -> Iterator[RemoteTransparentLlm]:
    with served() as llm:
        yield llm


def by_hand(values: list[torch.Tensor], k: int, *, once: bool) -> list[list[tuple[int, int]]]:
    """Of values [pos item] of each text: the places (text, pos) of each item by falling value, the first of equals."""
    found = []
    for item in range(values[0].shape[1]):
        places = [(-float(v), text, pos) for text, of in enumerate(values) for pos, v in enumerate(of[:, item])]
        if once:
            places = [min(place for place in places if place[1] == text) for text in range(len(values))]
        found.append([(text, pos) for _, text, pos in sorted(places)[:k]])
    return found


def alone(llm: TransparentLlm, sentence: str | list[int], layer: int) -> dict[str, torch.Tensor]:
    """Each of one text by itself [pos item]."""
    llm.run([sentence]) if isinstance(sentence, str) else llm.run_tokens([sentence])
    n, n_heads = llm.tokens().shape[1], llm.model_info().n_heads
    heads = [[llm.attention_output(0, layer, pos, head).norm() for head in range(n_heads)] for pos in range(n)]
    return {
        "neurons": torch.stack([llm.neuron_activations(0, layer, pos) for pos in range(n)]),
        "heads": torch.tensor(heads),
        "residual_out": llm.residual_out(layer)[0],
        "tokens": llm.tokens()[0],
    }


def places(found: Any) -> list[list[tuple[int, int]]]:
    return [
        list(zip(texts, positions, strict=True))
        for texts, positions in zip(found.texts.tolist(), found.positions.tolist(), strict=True)
    ]


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("texts", [TEXTS, IDS], ids=["text", "ids"])
def test_they_are_the_largest_of_all(texts: list[Any], once: bool) -> None:
    llm = tiny().copy()
    every = [alone(llm, text, 1) for text in texts]
    llm.run_tokens([[1, 2]])
    directions = torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(0))
    unit = directions / directions.norm(dim=1, keepdim=True)
    for site, wanted, more in (
        ("neurons", [each["neurons"] for each in every], {}),
        ("heads", [each["heads"] for each in every], {}),
        ("residual_out", [each["residual_out"] @ unit.T for each in every], {"directions": directions}),
    ):
        how: dict[str, Any] = {"k": 4, "context": 2, "once_per_text": once, **more}
        hand = by_hand(wanted, 4, once=once)
        assert places(top_activations(llm, texts, (site, 1), max_sentences=1, **how)) == hand  # each text is run alone
        found = top_activations(llm, texts, (site, 1), **how)
        for item, (ours, theirs) in enumerate(zip(places(found), hand, strict=True)):
            assert len({*ours}) == len(ours)
            values = [[float(wanted[text][pos, item]) for text, pos in each] for each in (ours, theirs)]
            assert values[0] == pytest.approx(values[1], rel=1e-4, abs=1e-5), item
        for item in range(0, len(hand), 17):
            for example in found.examples(item):
                of_text = wanted[example.text]
                start = max(0, example.pos - 2)
                near = of_text[start : example.pos + 3, item]
                torch.testing.assert_close(torch.tensor(example.values), near, rtol=1e-4, atol=1e-5)
                assert example.value == example.values[example.peak]
                ids = every[example.text]["tokens"][start : example.pos + 3]
                assert list(example.tokens) == llm.tokens_to_strings(ids)
                assert start + example.peak == example.pos
    assert llm.tokens().tolist() == [[1, 2]]
    assert (found.n_texts, found.n_tokens) == (len(texts), sum(len(each["tokens"]) for each in every))


def test_equal_values_come_in_the_order_of_the_data_set_whatever_the_chunks() -> None:
    generator = torch.Generator().manual_seed(1)
    lengths = [3, 1, 5, 1, 1, 7, 2, 4]
    values = [torch.randint(-1, 2, (n, 6), generator=generator).float() for n in lengths]
    values[2][:, 4] = torch.nan
    values[5][1, 4] = torch.inf
    plain = [each.nan_to_num(nan=-torch.inf, posinf=torch.inf) for each in values]
    for once in (True, False):
        wanted = by_hand(plain, 5, once=once)
        for size in (1, 2, 3, 8):
            kept = TopPlaces(6, 5, 1, once_per_sentence=once)
            for start in range(0, len(values), size):
                kept.add(torch.cat(values[start : start + size]), rows_of(lengths, start, start + size))
            got = [
                list(zip(*each, strict=True))
                for each in zip(kept.sentences.tolist(), kept.positions.tolist(), strict=True)
            ]
            assert got == wanted, (once, size)
            for item, rank in ((0, 0), (4, 0), (5, 4)):
                text, pos = wanted[item][rank]
                near = [
                    values[text][at, item] if 0 <= at < lengths[text] else torch.nan for at in range(pos - 1, pos + 2)
                ]
                torch.testing.assert_close(kept.around[item, rank], torch.tensor(near), equal_nan=True)
                ids = [100 * text + at if 0 <= at < lengths[text] else -1 for at in range(pos - 1, pos + 2)]
                assert kept.tokens[item, rank].tolist() == ids


def rows_of(lengths: list[int], start: int, stop: int) -> Rows:
    """Of some sentences; the tokens of one are 100 times its number and so on."""
    part = [(text, pos) for text in range(start, min(stop, len(lengths))) for pos in range(lengths[text])]
    sentence, pos = (torch.tensor(column) for column in zip(*part, strict=True))
    return Rows({}, sentence, pos, 100 * sentence + pos)


def test_zeros_of_a_relu_come_in_order() -> None:
    """OPT: most activations are exactly 0, in whatever batch."""
    llm = tiny("opt").copy()
    values = [alone(llm, text, 0)["neurons"] for text in IDS]
    assert sum(float((each == 0).sum()) for each in values) > 1000
    neurons = [n for n in range(96) if sum(bool(each[:, n].max() > 0) for each in values) <= 2][:12]
    assert neurons
    wanted = [by_hand(values, 5, once=True)[neuron] for neuron in neurons]
    found = top_activations(llm, IDS, ("neurons", 0), neurons, k=5)
    assert places(found) == wanted


def test_chunks_and_places_make_no_difference(remote: RemoteTransparentLlm) -> None:
    whole = top_activations(tiny(), TEXTS, ("heads", 0), k=3)
    for llm, bounds in (
        (tiny(), {"max_sentences": 1}),
        (tiny(), {"max_tokens": 40}),
        (remote, {}),
        (remote, {"max_sentences": 3}),
    ):
        found = top_activations(llm, iter(TEXTS), ("heads", 0), k=3, **bounds)
        assert places(found) == places(whole)
        torch.testing.assert_close(found.values, whole.values, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.context_values, whole.context_values, rtol=1e-4, atol=1e-5, equal_nan=True)
    some = top_activations(remote, TEXTS, ("neurons", -1), [7, -1], k=2)
    assert some.items == (7, 255)
    assert places(some) == places(top_activations(tiny(), TEXTS, ("neurons", 1), [7, 255], k=2))


@pytest.mark.parametrize("once", [True, False])
def test_scans_of_parts_are_put_together_as_one_of_all(remote: RemoteTransparentLlm, once: bool) -> None:
    how: dict[str, Any] = {"k": 3, "context": 1, "once_per_text": once, "max_sentences": 1}
    for site in (("neurons", 1), ("heads", 0)):
        whole = top_activations(tiny(), TEXTS, site, **how)
        parts = [TEXTS[:1], TEXTS[1:2], TEXTS[2:5], TEXTS[5:]]  # a text comes in the first and in the last
        scans = [top_activations(llm, part, site, **how) for llm, part in zip([tiny(), remote] * 2, parts, strict=True)]
        found = scans[0].followed_by(*scans[1:])
        assert places(found) == places(whole)
        for name in ("values", "context_tokens", "context_values"):
            assert_same_bits(getattr(found, name), getattr(whole, name))
        assert (found.n_texts, found.n_tokens, found.items) == (whole.n_texts, whole.n_tokens, whole.items)
        assert found.examples(2) == whole.examples(2)
        assert places(scans[0].followed_by()) == places(scans[0])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: top_activations(tiny("llama_gqa"), TEXTS, ("heads", 0), k=2), "model"),
        (lambda: top_activations(tiny(), TEXTS, ("heads", 1), k=2), "site"),
        (lambda: top_activations(tiny(), TEXTS, ("heads", 0), [0], k=2), "site"),
        (lambda: top_activations(tiny(), TEXTS, ("heads", 0), k=3), "k, '2' and '3'"),
        (lambda: top_activations(tiny(), TEXTS, ("heads", 0), k=2, context=3), "context, '8' and '3'"),
    ],
)
def test_scans_of_different_questions_are_not_put_together(other: Any, words: str) -> None:
    found = top_activations(tiny(), TEXTS, ("heads", 0), k=2)
    with pytest.raises(InvalidRequestError, match=f"two scans differ in their {words}"):
        found.followed_by(other())
    with pytest.raises(InvalidRequestError, match="another TopActivations, got NoneType"):
        found.followed_by(None)  # type: ignore[arg-type]  # that is what is refused


def test_fewer_texts_than_places_and_what_an_interruption_leaves() -> None:
    found = top_activations(tiny(), IDS[:2], ("neurons", 0), [1], k=4)
    assert len(found.examples(1)) == 2
    assert found.values[0, 2:].tolist() == [-torch.inf] * 2
    assert found.texts[0, 2:].tolist() == [-1, -1]

    def texts() -> Iterator[list[int]]:
        yield from IDS[:4]
        raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(top_activations_by_part(tiny(), texts(), ("neurons", 0), [1], k=4, max_sentences=1))
    parts = list(top_activations_by_part(tiny(), IDS[:3], ("neurons", 0), [1], k=4, max_sentences=1))
    assert [part.n_texts for part in parts] == [1, 2, 3]
    assert places(parts[1]) == places(found)


def test_progress_is_told() -> None:
    told: list[tuple[int, int | None]] = []
    top_activations(tiny(), IDS, ("heads", 0), k=1, max_sentences=2, progress=lambda *done: told.append(done))
    assert told == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(
    ("arguments", "more", "error", "words"),
    [
        ((TEXTS, ("neurons", 0)), {"k": 0}, InvalidRequestError, "k must be 1 to 1000, .* got 0"),
        ((TEXTS, ("neurons", 0)), {"k": 1001}, InvalidRequestError, "got 1001"),
        ((TEXTS, ("neurons", 0)), {"context": 257}, InvalidRequestError, "context must be 0 to 256, .* got 257"),
        (
            (TEXTS, ("neurons", 0)),
            {"k": 1000, "context": 256},
            InvalidRequestError,
            "256 items .* 131,328,000 values, at most 67,108,864",
        ),
        (
            (TEXTS, ("neurons", 0), [256]),
            {},
            IndexOutOfRangeError,
            "neuron 256 is out of range: valid indices are 0 to 255",
        ),
        ((TEXTS, ("heads", 0), [4]), {}, IndexOutOfRangeError, "head 4 is out of range"),
        ((TEXTS, ("heads", 2)), {}, IndexOutOfRangeError, "layer 2 is out of range"),
        ((TEXTS, ("heads", 0), []), {}, InvalidRequestError, "some different ones"),
        ((TEXTS, ("residual_out", 0)), {}, InvalidRequestError, "give directions"),
        (
            (TEXTS, ("residual_out", 0)),
            {"directions": torch.ones(3)},
            InvalidRequestError,
            r"\[64\] or \[n 64\], got torch.float32 \[3\]",
        ),
        ((TEXTS, ("residual_out", 0)), {"directions": torch.zeros(64)}, InvalidRequestError, "lengths above 0"),
        ((TEXTS, ("logits",)), {"directions": torch.ones(64)}, InvalidRequestError, r"values \[500\]"),
        (("text", ("heads", 0)), {}, InvalidRequestError, "takes a list of texts"),
        (([], ("heads", 0)), {}, InvalidRequestError, "there is no text"),
        ((TEXTS, ("heads", 0)), {"max_tokens": 0}, InvalidRequestError, "max_tokens must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused_with_its_numbers(
    arguments: tuple[Any, ...], more: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        top_activations(tiny(), *arguments, **more)


# Shown


def test_cards_have_text_and_no_markup_of_it() -> None:
    llm = tiny()
    found = top_activations(llm, [TEXTS[3], *TEXTS[:2]], ("neurons", 1), k=2, context=100)
    html = found._repr_html_()
    assert "<script" not in html
    assert "<b>" not in html
    assert html.count("outline: 2px solid") == 40  # a peak in each example of 20 cards
    assert "236 of 256 left out" in html
    promoted = llm.top_tokens_of(llm.neuron_output(1, 0), k=1).strings[0]
    assert "neuron 0, promotes" in html
    assert repr(promoted).strip("'")[0] in html
    assert "promotes" not in top_activations(llm, TEXTS, ("heads", 1), k=1)._repr_html_()


def test_the_texts_of_tokens_are_asked_for_together() -> None:
    listener = Listener()
    with served(listener) as llm:
        found = llm.top_activations(TEXTS, ("neurons", 1), k=2)
        before = listener.names.count("TokensToStrings")
        assert len(found.to_pandas()) == 2 * 256
        assert str(found)
        assert listener.names.count("TokensToStrings") == before + 1


def test_as_a_table_and_as_a_frame() -> None:
    found = top_activations(tiny(), TEXTS, ("heads", 1), [2, 0], k=3, context=1)
    assert str(found).startswith("top 3 of 2 heads of layer 1, by length of output, 7 texts")
    frame = found.to_pandas()
    assert list(frame.columns) == ["head", "rank", "value", "text", "pos", "token", "context"]
    assert frame["head"].tolist() == [2, 2, 2, 0, 0, 0]
    assert frame["value"].tolist() == pytest.approx(found.values.flatten().tolist())
    with pytest.raises(InvalidRequestError, match="head 1 was not asked for"):
        found.examples(1)
