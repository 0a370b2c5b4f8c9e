"""Scans of a data set that are taken up again from a file, beside those that nothing interrupts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from support.models.families import D_MODEL
from support.servers.servers import Listener, running, served, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.dataset.examples import TopActivations
from transparent_llm.analysis.top_activations import top_activations, top_activations_by_part
from transparent_llm.errors import InvalidRequestError, UnavailableError

TEXTS = [
    "the cat sat on the mat",
    "a",
    "What say you, my lord? The king of France is at the door, and many others with him",
    "To be or not to be, that is the question",
    "the cat sat on the mat",
    "my lord",
    "\n\n",
]

SCANS: list[dict[str, Any]] = [
    {"site": ("neurons", 1), "items": [7, -1, 30]},
    {"site": ("residual_out", 0), "directions": torch.eye(D_MODEL)[:3]},
]


def assert_exactly(got: TopActivations, wanted: TopActivations) -> None:
    assert (got.items, got.n_texts, got.n_tokens) == (wanted.items, wanted.n_texts, wanted.n_tokens)
    for name in ("values", "texts", "positions", "context_tokens", "context_values"):
        one, other = getattr(got, name), getattr(wanted, name)
        assert one.dtype is other.dtype
        assert torch.equal(one.nan_to_num(nan=-7), other.nan_to_num(nan=-7)), name


@pytest.mark.parametrize("scan", SCANS, ids=["neurons", "directions"])
def test_a_scan_whose_server_goes_in_the_middle_is_taken_up_again(scan: dict[str, Any], tmp_path: Path) -> None:
    file, wanted = tmp_path / "scan.safetensors", tiny().top_activations(TEXTS, **scan, k=3, max_sentences=2)
    with running() as server, RemoteTransparentLlm(server.address, timeout_s=30, reconnect_s=0) as llm:

        def texts() -> Iterator[str]:
            yield from TEXTS[:5]  # the fifth ends the second chunk
            server.stop()
            yield from TEXTS[5:]

        with pytest.raises(UnavailableError):
            llm.top_activations(texts(), **scan, k=3, max_sentences=2, file=file)
    listener, told = Listener(), []
    with served(listener) as llm:
        part, *_ = top_activations_by_part(llm, TEXTS, **scan, k=3, max_sentences=2, file=file)
        assert part.n_texts == 4
        n_runs = listener.names.count("Run")
        assert 0 < n_runs < 7
        found = llm.top_activations(
            iter(TEXTS), **scan, k=3, max_sentences=2, file=str(file), progress=lambda done, _: told.append(done)
        )
        assert listener.names.count("Run") == n_runs, "all of it is there"
        assert told == [2, 4, 6, 7]
        assert found.examples(found.items[0]) == wanted.examples(wanted.items[0])
    assert_exactly(found, wanted)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_texts_may_be_added_after_whole_chunks(tmp_path: Path) -> None:
    def found(texts: list[Any], **more: Any) -> TopActivations:
        return top_activations(tiny(), texts, ("heads", 0), k=2, max_sentences=2, **more)

    found(TEXTS[:4], file=tmp_path / "scan")
    assert_exactly(found(TEXTS, file=tmp_path / "scan"), found(TEXTS))


@pytest.mark.parametrize(
    ("texts", "change", "words"),
    [
        ([*TEXTS[:3], "another text", *TEXTS[4:]], {}, "the first 7 texts of another data set"),
        (TEXTS[:6], {}, "the first 7 texts of another data set"),
        ([*TEXTS, "one more"], {}, "the first 7 texts of another data set"),
        (TEXTS, {"k": 3}, "made otherwise: k 2, not 3"),
        (TEXTS, {"context": 1}, "made otherwise: context 8, not 1"),
        (TEXTS, {"once_per_text": False}, "made otherwise: once_per_text True, not False"),
        (TEXTS, {"max_sentences": 3}, "made otherwise: max_sentences 2, not 3"),
        (TEXTS, {"items": [1]}, "made otherwise: items '1,2', not '1'"),
        (TEXTS, {"site": ("neurons", 1)}, r"made otherwise: sites \['neuron_activations.0'\], not"),
        (TEXTS, {"llm": "opt"}, "made otherwise: model '[0-9a-f]{64}', not '[0-9a-f]{64}'"),
    ],
)
def test_a_file_of_something_else_is_refused_and_stays(
    texts: list[str], change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "scan"
    asked = {"site": ("neurons", 0), "items": [1, 2], "k": 2, "max_sentences": 2, "file": path}
    top_activations(tiny(), TEXTS, **asked)
    before = path.read_bytes()
    with pytest.raises(InvalidRequestError, match=words):
        top_activations(tiny(change.pop("llm", "gpt2")), texts, **{**asked, **change})
    assert path.read_bytes() == before


def _cut(data: bytes) -> bytes:
    return data[:-100]


def _one_bit(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def _another_count(data: bytes) -> bytes:
    assert b'"[7, ' in data
    return data.replace(b'"[7, ', b'"[2, ')


def _long_header(data: bytes) -> bytes:
    return (2**40).to_bytes(8, "little") + data[8:]


def _of_other_tensors(_: bytes) -> bytes:
    return bytes(save({"rows": torch.zeros(3)}, metadata={"format": "1"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "is damaged"),
        (_one_bit, "is damaged.*its checksum is wrong"),
        (_another_count, "is damaged.*its checksum is wrong"),
        (_long_header, "is damaged.*1,099,511,627,776 of them before its data"),
        (_of_other_tensors, "made otherwise"),
        (lambda _: b"", "is damaged"),
        (lambda _: b"{}" * 4000, "is damaged"),
    ],
)
def test_a_damaged_file_is_said_to_be_one(damage: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    path = tmp_path / "scan"
    top_activations(tiny(), TEXTS, ("heads", 0), k=2, file=path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidRequestError, match=words):
        top_activations(tiny(), TEXTS, ("heads", 0), k=2, file=path)


def test_what_is_no_file_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="it is no regular file"):
        top_activations(tiny(), TEXTS, ("heads", 0), file=tmp_path)
