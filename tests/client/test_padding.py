"""What a client marks at padded positions, of parts of axes, of several reads, and of models that do not tell."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from support.models.families import FAMILIES, build_model, build_tokenizer
from support.models.reference import HuggingFaceReference
from support.servers.servers import Watcher, served, tiny
from transparent_llm import PaddingWarning, RemoteTransparentLlm, connect, errors
from transparent_llm.testing import serve_in_process
from transparent_llm.wire.methods import METHODS
from transparent_llm_server import TransformerLensTransparentLlm

ROWS = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10], [11, 12, 13, 14]]
READS: list[tuple[str, tuple[int, ...]]] = [
    ("logits", ()),
    ("residual_in", (1,)),
    ("residual_out", (0,)),
    ("attention_matrix", (1, 1, 3)),
    ("decomposed_attn", (1, 0)),
    ("decomposed_ffn_out", (1, 0, 4)),
    ("decomposed_ffn_out", (1, 0, 2)),
]
PARTS: list[dict[str, slice]] = [
    {},
    {"pos": slice(-1, None)},
    {"pos": slice(1, None, 2), "batch": slice(1, None)},
    {"batch": slice(2, None), "d_model": slice(9)},
    {"query_pos": slice(-5, None), "key_pos": slice(None, None, 3)},
    {"target": slice(2, 4), "source": slice(1, 6), "head": slice(None, None, 2)},
    {"hidden": slice(3, 250, 11)},
    {"pos": slice(0, 0)},
]


class WithoutMask(HuggingFaceReference):
    """Tells nothing of padding."""

    def mask(self) -> torch.Tensor:
        raise errors.NotSupportedError("not told")


@pytest.fixture(scope="module")
def llm() -> Iterator[RemoteTransparentLlm]:
    with served() as remote:
        remote.run_tokens(ROWS)
        yield remote


@pytest.fixture(scope="module")
def local() -> TransformerLensTransparentLlm:
    model = tiny().copy()
    model.run_tokens(ROWS)
    return model


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("read", READS, ids=str)
def test_parts_are_marked_where_the_whole_would_be(
    read: tuple[str, tuple[int, ...]],
    dtype: torch.dtype | None,
    llm: RemoteTransparentLlm,
    local: TransformerLensTransparentLlm,
) -> None:
    name, indices = read
    dims = METHODS[name].dims or ()
    with local.reading(padding="nan"):
        whole = getattr(local, name)(*indices)
    for axes in PARTS:
        if set(axes) <= set(dims):
            wanted = whole[tuple(axes.get(axis, slice(None)) for axis in dims)].to(dtype or whole.dtype)
            with llm.reading(padding="nan", dtype=dtype, **axes):
                got, (fetched,) = getattr(llm, name)(*indices), llm.fetch([(name, *indices)])
            for value in (got, fetched):
                assert value.dtype == wanted.dtype
                assert torch.equal(value.isnan(), wanted.isnan())
                assert torch.equal(value.nan_to_num(), wanted.nan_to_num())


def test_what_is_sent_and_kept_is_the_same() -> None:
    watcher = Watcher()
    with served(watcher) as llm:
        llm.run_tokens(ROWS)
        before = llm.residual_in(1)
        sent = watcher.messages
        with llm.reading(padding="nan"):
            assert llm.residual_in(1).isnan().any()
            assert llm.residual_out(0).isnan().any()
        assert torch.equal(llm.residual_in(1), before)
        assert watcher.messages == sent


def test_many_reads_are_one_warning_that_names_the_first(llm: RemoteTransparentLlm) -> None:
    twin = llm.copy()
    twin.run_tokens(ROWS)
    reads: list[Any] = [
        "logits",
        ("neuron_activations", 1, 0, 2),
        *(("neuron_activations", 2, 1, pos) for pos in (4, 5)),
    ]
    twin.prefetch(reads)  # gives nobody a value
    with pytest.warns(PaddingWarning) as told:
        twin.fetch(reads)
    (warning,) = told
    assert str(warning.message).startswith("neuron_activations was read at position 4 of row 2, which has 4 tokens: ")
    assert warning.filename == __file__


def test_a_client_is_made_with_a_choice_that_blocks_and_pickles_know(llm: RemoteTransparentLlm) -> None:
    with connect(llm._config.target, padding="nan") as marking:
        marking.run_tokens(ROWS)
        assert marking.logits()[1, 3:].isnan().all()
        with marking.reading(pos=slice(2, None)):
            assert marking.logits()[1, 1:].isnan().all()
        with marking.reading(padding="keep"):
            assert torch.equal(marking.logits(), llm.logits())
        with pickle.loads(pickle.dumps(marking)) as again:
            again.run_tokens(ROWS)
            assert again.logits()[1, 3:].isnan().all()
    with pytest.raises(errors.InvalidRequestError, match=r"^padding is .* got str 'zero'$"):
        RemoteTransparentLlm(padding="zero")  # type: ignore[arg-type]


def test_a_model_that_does_not_tell_is_not_believed_to_have_no_padding() -> None:
    model = WithoutMask(build_model(FAMILIES["gpt2"]()), build_tokenizer(), prepend_bos=False)
    with serve_in_process(model) as llm:
        llm.run_tokens(ROWS)
        llm.neuron_activations(1, 0, 5)
        with llm.reading(padding="nan"):
            assert llm.tokens().shape == (3, 7)
            with pytest.raises(
                errors.NotSupportedError, match=r'^padding="nan": the served model does not distinguish'
            ):
                llm.logits()
            assert torch.isfinite(llm.neuron_output(0, 1)).all()
