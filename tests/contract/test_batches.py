"""A sentence in a batch of mixed lengths gives what it gives alone."""

from __future__ import annotations

import torch

from support.models.batch import MAX_ERROR
from support.servers.backends import Backend
from transparent_llm import TransparentLlm

SENTENCES = ["The river runs slowly to the sea", "a", "Why not? Because."]


def difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    assert got.shape == wanted.shape
    return (got - wanted).abs().max().item()


def test_each_row_equals_the_sentence_alone(backend: Backend, family: str) -> None:
    together, alone = backend.open(family), backend.open(family)
    together.run(SENTENCES)
    for row, sentence in enumerate(SENTENCES):
        alone.run([sentence])
        n = alone.tokens().shape[1]
        assert together.mask()[row].sum().item() == n
        assert torch.equal(together.tokens()[row, :n], alone.tokens()[0])
        assert difference(together.logits()[row, :n], alone.logits()[0]) <= MAX_ERROR
        assert_rows_equal(together, alone, row, n)


def assert_rows_equal(together: TransparentLlm, alone: TransparentLlm, row: int, n: int) -> None:
    layer = together.model_info().n_layers - 1
    assert difference(together.residual_out(layer)[row, :n], alone.residual_out(layer)[0]) <= MAX_ERROR
    matrices = together.attention_matrix(row, layer, 1)[:n, :n], alone.attention_matrix(0, layer, 1)
    assert difference(*matrices) <= MAX_ERROR
    parts = together.decomposed_attn(row, layer)[:n, :n], alone.decomposed_attn(0, layer)
    assert difference(*parts) <= MAX_ERROR
    neurons = together.neuron_activations(row, layer, n - 1), alone.neuron_activations(0, layer, n - 1)
    assert difference(*neurons) <= MAX_ERROR


def test_a_new_run_replaces_the_old_one(backend: Backend, family: str) -> None:
    llm = backend.open(family)
    llm.run(["first", "second one"])
    before = llm.residual_in(0)
    llm.run(["something else entirely"])
    assert llm.batch_size() == 1
    assert llm.residual_in(0).shape != before.shape


def test_a_copy_has_a_current_run_of_its_own(backend: Backend, family: str) -> None:
    llm = backend.open(family)
    llm.run(["first"])
    other, kept = llm.copy(), llm.logits()
    assert torch.equal(other.logits(), kept)
    other.run(["quite another sentence"])
    assert torch.equal(llm.logits(), kept)
    assert other.tokens().shape != llm.tokens().shape


def test_editing_a_result_harms_nothing(backend: Backend, family: str) -> None:
    llm = backend.open(family)
    llm.run(["do not touch"])
    for read in (
        llm.tokens,
        llm.logits,
        lambda: llm.residual_in(1),
        lambda: llm.residual_out(0),
        lambda: llm.residual_after_attn(0),
        lambda: llm.ffn_out(0),
        lambda: llm.attention_matrix(0, 0, 0),
        lambda: llm.attention_output(0, 0, 1),
        lambda: llm.neuron_output(0, 3),
        lambda: llm.neuron_activations(0, 0, 1),
    ):
        before = read()
        edited = read()
        edited.zero_()
        assert torch.equal(read(), before)
        assert before.abs().sum().item() > 0
