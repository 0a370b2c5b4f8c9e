"""Residual vectors on their way to the vocabulary: a matrix is its rows, and a part has the bits of the whole."""

from __future__ import annotations

import pytest
import torch

from support.models.batch import assert_close
from support.servers.servers import served, tiny
from transparent_llm import errors
from transparent_llm_server.models.derived import unembedded
from transparent_llm_server.models.derived.unembedded import Unembedded

BLOCK = 32
"""Vectors that are computed together in a model of so small a vocabulary."""

PARTS = [
    (slice(0, 70), slice(0, 500)),
    (slice(3, 40, 7), slice(0, 500)),
    (slice(33, 34), slice(90, 210, 13)),
    (slice(0, 70, 31), slice(499, 500)),
    (slice(5, 5), slice(0, 500)),
    (slice(0, 70), slice(100, 100)),
]


def residuals(n: int) -> torch.Tensor:
    return torch.linspace(-2, 2, n * 64).sin().reshape(n, 64)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "gptj"])
def test_a_matrix_is_unembedded_row_by_row(family: str, normalize: bool) -> None:
    llm, matrix = tiny(family), residuals(BLOCK + 3)
    whole = llm.unembed(matrix, normalize)
    assert whole.shape == (BLOCK + 3, llm.model_info().d_vocab)
    for row in (0, BLOCK - 1, BLOCK, BLOCK + 2):
        assert_close(whole[row], llm.unembed(matrix[row], normalize))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("part", PARTS, ids=str)
def test_a_part_has_the_bits_of_the_whole(
    part: tuple[slice, slice], normalize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unembedded, "_TOKENS", 96)  # so that the vocabulary of 500 has blocks
    model = tiny().bridged
    whole = Unembedded(model, residuals(70), normalize=normalize)
    cut = whole.select(part)
    assert torch.equal(cut.tensor(), whole.tensor()[part])
    assert cut.tensor().shape == cut.shape
    assert [piece.compute().shape for piece in cut.pieces(1)] == [piece.shape for piece in cut.pieces(1)]
    vector = Unembedded(model, residuals(1)[0], normalize=normalize)
    assert torch.equal(vector.select([part[1]]).tensor(), vector.tensor()[part[1]])


def test_only_the_blocks_that_are_asked_for_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unembedded, "_TOKENS", 100)
    model, multiplied = tiny().bridged, []
    plain = model.unembed

    def noted(rows: torch.Tensor, *, normalize: bool, tokens: range) -> torch.Tensor:
        multiplied.append((len(rows), tokens))
        return plain(rows, normalize=normalize, tokens=tokens)

    monkeypatch.setattr(model, "unembed", noted)
    Unembedded(model, residuals(70), normalize=True).select([slice(40, 50), slice(150, 250)]).tensor()
    assert multiplied == [(BLOCK, range(100, 200)), (BLOCK, range(200, 300))]


def test_a_client_gets_the_same_bits_and_can_cut_the_vocabulary() -> None:
    matrix = residuals(40)
    whole = tiny().unembed(matrix, True)
    with served() as llm:
        assert torch.equal(llm.unembed(matrix, True), whole)
        llm.run_tokens([[1, 2]])  # now it is known what must come
        with llm.reading(vocab=slice(5, 9), dtype=torch.bfloat16):
            assert torch.equal(llm.unembed(matrix, True), whole[:, 5:9].bfloat16())
        assert llm.unembed(matrix[:0], True).shape == (0, 500)


@pytest.mark.parametrize("shape", [(), (2, 65), (2, 3, 64), (64, 2)], ids=str)
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with served() as llm:
        for model in (tiny(), llm):
            with pytest.raises(errors.InvalidRequestError) as refused:
                model.unembed(torch.zeros(shape), True)
            assert str(refused.value) == (
                f"unembed takes a vector of d_model = 64 elements, or a matrix of such rows, got shape {list(shape)}"
            )
            assert refused.value.metadata == {"expected": "[64] or [n 64]", "got": str(list(shape))}
