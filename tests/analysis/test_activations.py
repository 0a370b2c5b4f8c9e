"""A data set through a model: each row is what its sentence has when it is run alone, and little else travels."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pyarrow
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from support.models.families import FAMILIES
from support.models.tensors import assert_same_bits
from support.servers.servers import Continuation, Listener, running, served, tiny
from transparent_llm import RemoteTransparentLlm, TransparentLlm, errors
from transparent_llm.analysis import interrupt
from transparent_llm.analysis.activations import activations
from transparent_llm.analysis.dataset.chunks import Bounds, chunks, weight
from transparent_llm.analysis.dataset.reading import Block, blocks
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.rpc.interceptors.base import size_of

SENTENCES = [
    "the cat sat on the mat",
    "a",
    "What say you, my lord? The king of France is at the door, and many others with him",
    "dogs",
    "To be or not to be, that is the question",
    "the cat sat on the mat",
    "\n\n",
    "zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
]
TOKENS = [[1, 2, 3, 4, 5], [6], [7, 8, 9], list(range(10, 40)), [11, 12, 13]]
MAX_ERROR = 1e-5
READS: list[Any] = [
    ("residual_out", 1),
    ("ffn_out", 0),
    "logits",
    ("attention_output", 1, 3),
    ("attention_output", -1),
    ("neuron_activations", 1),
]
NAMES = ["residual_out.1", "ffn_out.0", "logits", "attention_output.1.3", "attention_output.-1", "neuron_activations.1"]


def alone(llm: TransparentLlm, sentence: str | list[int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """All of READS at every position of a sentence that is run by itself, and its tokens."""
    llm.run([sentence]) if isinstance(sentence, str) else llm.run_tokens([sentence])
    n = llm.tokens().shape[1]
    values = [
        llm.residual_out(1)[0],
        llm.ffn_out(0)[0],
        llm.logits()[0],
        torch.stack([llm.attention_output(0, 1, pos, 3) for pos in range(n)]),
        torch.stack([llm.attention_output(0, -1, pos) for pos in range(n)]),
        torch.stack([llm.neuron_activations(0, 1, pos) for pos in range(n)]),
    ]
    return dict(zip(NAMES, values, strict=True)), llm.tokens()[0]


def assert_near(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert got.shape == expected.shape
    assert got.dtype is expected.dtype
    torch.testing.assert_close(got, expected, rtol=0, atol=MAX_ERROR * float(expected.abs().max()))


class Sent(Listener):
    """Also counts the bytes of messages of streams."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def _streamed(self, answer: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for message in answer(request, context):
            self.bytes += size_of(message)
            yield message

    def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        return super().intercept_service(continuation, details)


@pytest.fixture(scope="module")
def remote() -> Iterator[RemoteTransparentLlm]:
    with served() as llm:
        yield llm


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_what_sentences_have_alone(family: str) -> None:
    llm = tiny(family).copy()
    expected = [alone(llm, sentence) for sentence in TOKENS]
    every = activations(llm, TOKENS, READS, "all").tensors()
    last = activations(llm, TOKENS, READS).tensors()
    mean = activations(llm, TOKENS, READS, "mean").tensors()
    for name in NAMES:
        assert_near(every[name], torch.cat([values[name] for values, _ in expected]))
        assert_near(last[name], torch.stack([values[name][-1] for values, _ in expected]))
        assert_near(mean[name], torch.stack([values[name].mean(0) for values, _ in expected]))


def test_rows_know_where_they_are_from() -> None:
    llm = tiny().copy()
    every = activations(llm, SENTENCES, "logits", "all").tensors()
    tokens = [alone(llm, sentence)[1] for sentence in SENTENCES]
    assert every["token"].tolist() == torch.cat(tokens).tolist()
    assert every["sentence"].tolist() == [i for i, row in enumerate(tokens) for _ in row]
    assert every["pos"].tolist() == [pos for row in tokens for pos in range(len(row))]
    last = activations(llm, SENTENCES, "logits").tensors()
    assert last["pos"].tolist() == [len(row) - 1 for row in tokens]
    assert last["token"].tolist() == [int(row[-1]) for row in tokens]
    assert last["sentence"].tolist() == list(range(len(SENTENCES)))
    assert activations(llm, SENTENCES, "logits", "mean").tensors().keys() == {"logits", "sentence"}


@pytest.mark.parametrize("pos", [0, 1, -1, -2])
def test_a_position_counts_within_each_sentence(pos: int) -> None:
    llm = tiny().copy()
    sentences = [row for row in TOKENS if len(row) > 1]
    got = activations(llm, sentences, ("residual_out", 1), pos).tensor()
    assert_near(got, torch.stack([alone(llm, row)[0]["residual_out.1"][pos] for row in sentences]))


@pytest.mark.parametrize("positions", ["last", "all", "mean", 0])
def test_a_remote_model_gives_the_same_bits(remote: RemoteTransparentLlm, positions: str | int) -> None:
    got = activations(remote, SENTENCES, READS, positions).tensors()
    expected = activations(tiny().copy(), SENTENCES, READS, positions).tensors()
    assert list(got) == list(expected)
    for name, tensor in got.items():
        assert_same_bits(tensor, expected[name])


def test_a_smaller_type_is_that_of_the_rows(remote: RemoteTransparentLlm) -> None:
    for llm in (remote, tiny().copy()):
        for positions in ("last", "mean"):
            full = activations(llm, SENTENCES, ("residual_out", 1), positions).tensor()
            got = activations(llm, SENTENCES, ("residual_out", 1), positions, dtype=torch.bfloat16).tensor()
            assert_same_bits(got, full.to(torch.bfloat16))


def test_only_the_wanted_positions_travel() -> None:
    sent = Sent()
    with running(sent) as server, RemoteTransparentLlm(server.address, shared_memory=False) as llm:
        rows = [[1 + i % 400] * (3 + i % 20) for i in range(100)]
        got = activations(llm, rows, ("residual_out", 1)).tensor()
        assert got.shape == (100, 64)
        assert sent.bytes < got.nbytes + 100 * 200, "a header for each row, and no other position"
        before, n_tokens = sent.bytes, sum(map(len, rows))
        assert len(activations(llm, rows, ("residual_out", 1), "all").tensor()) == n_tokens
        assert sent.bytes - before < n_tokens * 64 * 4 + 100 * 200, "no padding"


def test_lengths_are_run_together_and_rows_keep_their_order() -> None:
    listener = Listener()
    rows = [[1 + i] * (4 if i % 2 else 20) for i in range(60)]
    with running(listener) as server, RemoteTransparentLlm(server.address) as llm:
        got = activations(llm, rows, ("residual_out", 1)).tensors()
        assert listener.names.count("Run") == 2
        assert listener.names.count("ReleaseRun") == 2
        assert [*got["token"]] == [row[0] for row in rows]


def test_chunks_and_runs_change_no_row() -> None:
    llm = tiny().copy()
    whole = activations(llm, TOKENS, ("residual_out", 1), "all").tensor()
    for bounds in ({"max_sentences": 2}, {"max_tokens": 1}, {"max_sentences": 1, "max_tokens": 7}):
        assert_near(activations(llm, TOKENS, ("residual_out", 1), "all", **bounds).tensor(), whole)


def test_a_chunk_is_all_that_is_taken_of_an_endless_data_set() -> None:
    taken: list[int] = []

    def endless() -> Iterator[list[int]]:
        for i in itertools.count():
            taken.append(i)
            yield [1 + i % 400, 2]

    parts = iter(activations(tiny().copy(), endless(), ("residual_out", 1), max_sentences=5))
    first, second = next(parts), next(parts)
    assert first.sentence.tolist() == [0, 1, 2, 3, 4]
    assert second.sentence.tolist() == [5, 6, 7, 8, 9]
    assert len(taken) == 11, "one is looked at before it is known that the chunk is full"


def test_chunks_and_runs_are_within_their_bounds() -> None:
    sentences = [[1] * (1 + i * 7 % 50) for i in range(300)] + [[1] * 500]
    bounds = Bounds(40, 100)
    made = list(chunks(sentences, bounds))
    assert [row for chunk in made for row in chunk.sentences] == [tuple(row) for row in sentences]
    assert [chunk.first for chunk in made] == [0, *itertools.accumulate(len(chunk.sentences) for chunk in made[:-1])]
    for chunk in made:
        assert len(chunk.sentences) <= 40
        runs = list(chunk.runs(bounds))
        assert sorted(row for run in runs for row in run) == list(range(len(chunk.sentences)))
        for run in runs:
            sizes = [weight(chunk.sentences[row]) for row in run]
            assert len(run) == 1 or (max(sizes) * len(sizes) <= 100 and max(sizes) <= 1.5 * min(sizes))
    assert max(sum(map(weight, chunk.sentences)) for chunk in made) <= 16 * 100


def test_neighbours_with_the_same_positions_are_one_part() -> None:
    wanted = [range(3, 4), range(3, 4), range(2, 3), range(3, 4)]
    assert blocks(wanted) == [
        Block(range(2), range(3, 4)),
        Block(range(2, 3), range(2, 3)),
        Block(range(3, 4), range(3, 4)),
    ]


def test_more_than_the_largest_chunk_is_refused_before_it_is_read() -> None:
    llm = tiny().copy()
    made = activations(llm, TOKENS, ("residual_out", 1), "all", max_bytes=30 * 64 * 4)
    with pytest.raises(errors.InvalidRequestError, match=r"would have [\d,]+ bytes and more, and max_bytes is 7,680"):
        made.tensor()
    assert len(activations(llm, TOKENS, ("residual_out", 1), "all", max_bytes=42 * (64 * 4 + 3 * 8)).tensor()) == 42


class Unmasked(TransformerLensTransparentLlm):
    """A model that does not tell padding from tokens."""

    def mask(self) -> Any:
        raise errors.NotSupportedError("no mask")


def test_a_model_that_does_not_know_its_padding_is_run_sentence_by_sentence() -> None:
    llm = tiny().copy()
    expected = activations(llm, TOKENS, READS, "all").tensors()
    llm.__class__ = Unmasked
    got = activations(llm, TOKENS, READS, "all").tensors()
    for name in NAMES:
        assert_near(got[name], expected[name])
    assert got["token"].tolist() == [token for row in TOKENS for token in row]


def test_the_current_run_stays(remote: RemoteTransparentLlm) -> None:
    for llm in (remote, tiny().copy()):
        llm.run_tokens([[5, 6, 7]])
        before = llm.residual_out(1)
        activations(llm, TOKENS, ("residual_out", 1)).tensor()
        assert llm.tokens().tolist() == [[5, 6, 7]]
        assert_same_bits(llm.residual_out(1), before)


def test_a_run_that_is_somebodys_is_not_released() -> None:
    listener = Listener()
    with running(listener) as server, RemoteTransparentLlm(server.address, rerun=False, cache_bytes=0) as llm:
        llm.run_tokens([[5, 6, 7]])
        activations(llm, [[5, 6, 7]], ("residual_out", 1)).tensor()
        assert "ReleaseRun" not in listener.names
        assert llm.residual_out(1).shape == (1, 3, 64)


def test_progress_is_told_in_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int | None]] = []
    llm = tiny().copy()
    made = activations(
        llm, TOKENS, ("residual_out", 1), max_sentences=2, progress=lambda *how_far: told.append(how_far)
    )
    made.tensor()
    assert told == [(2, 5), (4, 5), (5, 5)]
    activations(llm, iter(TOKENS), ("residual_out", 1), progress=lambda *how_far: told.append(how_far)).tensor()
    assert told[-1] == (5, None)
    assert capsys.readouterr().err == ""
    activations(llm, TOKENS, ("residual_out", 1), progress=True).tensor()
    assert "activations" in capsys.readouterr().err


def test_it_can_be_ended_between_runs() -> None:
    class Ended(Exception):
        pass

    asked: list[None] = []

    def end_at_third() -> None:
        asked.append(None)
        if len(asked) == 3:
            raise Ended

    with interrupt.checking(end_at_third), pytest.raises(Ended):
        activations(tiny().copy(), TOKENS, ("residual_out", 1)).tensor()
    assert len(asked) == 3


@pytest.mark.parametrize("positions", ["last", "all", "mean"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float64])
def test_a_file_has_all_rows(tmp_path: Path, positions: str, dtype: torch.dtype | None) -> None:
    path = tmp_path / "rows.safetensors"
    made = activations(tiny().copy(), SENTENCES, READS, positions, dtype=dtype, max_sentences=3)
    assert made.save(path) == path
    held, expected = load_file(path), made.tensors()
    assert held.keys() == expected.keys()
    for name, tensor in expected.items():
        assert_same_bits(held[name], tensor)
    assert os.listdir(tmp_path) == ["rows.safetensors"]
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["n_sentences"] == "8"
    assert json.loads(metadata["recipe"])["reads"] == NAMES


class Stop(Exception):
    pass


def interrupted(llm: TransparentLlm, path: Path, after: int, **how: Any) -> None:
    """Save until so many sentences are done."""

    def stop(done: int, total: int | None) -> None:
        if done >= after:
            raise Stop

    with pytest.raises(Stop):
        activations(llm, TOKENS, ("residual_out", 1), "all", max_sentences=1, progress=stop, **how).save(path)


def test_an_interrupted_file_goes_on_where_it_was(tmp_path: Path) -> None:
    listener, path = Listener(), tmp_path / "rows.safetensors"
    with running(listener) as server, RemoteTransparentLlm(server.address) as llm:
        interrupted(llm, path, 3)
        assert not path.exists()
        assert listener.names.count("Run") == 3
        made = activations(llm, TOKENS, ("residual_out", 1), "all", max_sentences=1)
        made.save(path)
        assert listener.names.count("Run") == 5
        made.save(path)
        assert listener.names.count("Run") == 5, "it is whole"
        assert_same_bits(load_file(path)["residual_out.1"], made.tensor())


def test_a_part_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    llm = tiny().copy()
    interrupted(llm, path, 3)
    parts = sorted((tmp_path / "rows.safetensors.part").iterdir())
    assert len(parts) == 3
    parts[1].write_bytes(b"torn")
    made = activations(llm, TOKENS, ("residual_out", 1), "all", max_sentences=1)
    made.save(path)
    assert_same_bits(load_file(path)["residual_out.1"], made.tensor())


def test_rows_of_something_else_are_not_gone_on_with(tmp_path: Path) -> None:
    path, llm = tmp_path / "rows.safetensors", tiny().copy()
    read = ("residual_out", 1)
    interrupted(llm, path, 3)
    other = [*TOKENS[:2], [99], *TOKENS[3:]]
    with pytest.raises(errors.InvalidRequestError, match=r"part has rows of other sentences than 2 to 2 are now"):
        activations(llm, other, read, "all", max_sentences=1).save(path)
    with pytest.raises(errors.InvalidRequestError, match=r"was made otherwise: reads \['residual_out.1'\], not \['ffn"):
        activations(llm, TOKENS, ("ffn_out", 1), "all", max_sentences=1).save(path)
    with pytest.raises(errors.InvalidRequestError, match="was made otherwise: model '"):
        activations(tiny("llama_gqa").copy(), TOKENS, read, "all", max_sentences=1).save(path)
    activations(llm, TOKENS, read, "all", max_sentences=1).save(path)
    before = path.read_bytes()
    with pytest.raises(errors.InvalidRequestError, match="was made otherwise: positions 'all', not 'last'"):
        activations(llm, TOKENS, read, max_sentences=1).save(path)
    with pytest.raises(errors.InvalidRequestError, match="has rows of 5 other sentences; remove it or name"):
        activations(llm, other, read, "all", max_sentences=1).save(path)
    assert path.read_bytes() == before


def test_nothing_else_is_written_over(tmp_path: Path) -> None:
    made = activations(tiny().copy(), TOKENS, ("residual_out", 1))
    note, pipe = tmp_path / "note.txt", tmp_path / "pipe"
    note.write_text("mine")
    os.mkfifo(pipe)
    with pytest.raises(errors.InvalidRequestError, match="is no safetensors file; remove it or name another one"):
        made.save(note)
    for path in (pipe, tmp_path):
        with pytest.raises(errors.InvalidRequestError, match="it is no regular file"):
            made.save(path)
    (tmp_path / "x.part").symlink_to(tmp_path)
    with pytest.raises(errors.InvalidRequestError, match=r"x\.part is no folder; remove it"):
        made.save(tmp_path / "x")
    with pytest.raises(errors.InvalidRequestError, match="cannot write"):
        made.save(tmp_path / "no" / "folder")
    assert note.read_text() == "mine"


def test_an_arrow_table_has_all_rows() -> None:
    made = activations(tiny().copy(), SENTENCES, [*READS, ("decomposed_ffn_out", 0)], max_sentences=3)
    table, expected = made.to_arrow(), made.tensors()
    assert table.column_names == list(expected)
    assert table.num_rows == len(SENTENCES)
    for name, tensor in expected.items():
        rows = torch.tensor(table[name].to_pylist(), dtype=tensor.dtype)
        assert_same_bits(rows.reshape(tensor.shape), tensor)
    shape = json.loads(table.schema.field("decomposed_ffn_out.0").metadata[b"shape"])
    assert shape == list(expected["decomposed_ffn_out.0"].shape[1:])
    half = activations(tiny().copy(), SENTENCES, "logits", dtype=torch.bfloat16)
    assert half.to_arrow().schema.field("logits").type == pyarrow.list_(pyarrow.float32(), 500)
    assert half.to_arrow()["logits"].to_pylist() == half.tensor().float().tolist()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sentences": "one"}, r"takes a list of sentences, got str 'one'"),
    ({"read": "attention_matrix"}, r"'attention_matrix'.* is no value of a position; read a method name"),
    ({"read": "tokens"}, "is no value of a position"),
    ({"read": "__class__"}, "is no value of a position"),
    ({"read": ("residual_out",)}, r"residual_out takes layer here \(each row and position is of the data set\); got 0"),
    ({"read": ("attention_output", 0, 1, 2)}, "takes layer, head here"),
    ({"read": ("residual_out", 0.5)}, "layer must be an integer, got float 0.5"),
    ({"read": []}, "must be a list of different ones, got none"),
    ({"read": ["logits", "logits"]}, "must be a list of different ones, got logits, logits"),
    ({"positions": "first"}, r'positions must be "last", "all", "mean" or an integer, got str \'first\''),
    ({"positions": 1.5}, "got float 1.5"),
    ({"positions": True}, "got bool"),
    ({"dtype": torch.int64}, "takes a floating dtype, got torch.int64"),
    ({"dtype": "bfloat16"}, "write dtype=torch.bfloat16"),
    ({"max_sentences": 0}, "max_sentences must be at least 1, got 0"),
    ({"max_tokens": 2.5}, "max_tokens must be an integer"),
]


@pytest.mark.parametrize(("given", "words"), WRONG)
def test_what_cannot_be_is_said_at_once(given: dict[str, Any], words: str) -> None:
    asked = {"sentences": TOKENS, "read": ("residual_out", 1), **given}
    with pytest.raises(errors.InvalidRequestError, match=words):
        activations(tiny(), asked.pop("sentences"), asked.pop("read"), **asked)


@pytest.mark.parametrize(
    ("sentences", "words"),
    [
        ([], "there is no sentence"),
        (["a", [1]], "sentence 1 is not text, as those before it, but list"),
        ([[1], "a"], "sentence 1 is text, and those before it are token ids"),
        (["a", "\ud800"], "sentence 1 is not valid Unicode"),
        ([[1], [2, -1]], "sentence 1: token -1 is not in the vocabulary"),
        ([[1], 5], "sentence 1: run_tokens takes a list"),
    ],
)
def test_a_sentence_that_is_wrong_is_named(sentences: list[Any], words: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=words):
        activations(tiny().copy(), sentences, ("residual_out", 1)).tensors()


def test_a_position_that_a_sentence_lacks_is_told_with_its_number() -> None:
    made = activations(tiny().copy(), TOKENS, ("residual_out", 1), 2, max_sentences=3)
    with pytest.raises(errors.IndexOutOfRangeError, match="pos 2 is out of range in sentence 1, which has 1 tokens"):
        made.tensor()
    parts = activations(tiny().copy(), TOKENS[2:], ("residual_out", 1), -4, max_sentences=1)
    with pytest.raises(errors.IndexOutOfRangeError, match="pos -4 is out of range in sentence 0, which has 3 tokens"):
        parts.tensor()


def test_an_iterator_is_gone_through_once() -> None:
    made = activations(tiny().copy(), iter(TOKENS), ("residual_out", 1))
    assert len(made.tensor()) == 5
    with pytest.raises(errors.InvalidRequestError, match="an iterator that was used up: give a list"):
        made.tensor()


def test_one_tensor_is_of_one_read() -> None:
    made = activations(tiny().copy(), TOKENS, [("residual_out", 1), "logits"])
    assert repr(made) == "<Activations: residual_out.1, logits at last of 5 sentences>"
    with pytest.raises(errors.InvalidRequestError, match=r"several reads, residual_out.1, logits: take tensors"):
        made.tensor()
