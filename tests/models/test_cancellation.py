"""A forward pass that nobody waits for stops at the next layer."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from support.models.families import FAMILIES
from support.servers.servers import tiny
from transparent_llm_server.models.derived.unembedded import Unembedded
from transparent_llm_server.models.forward.cancellation import AbandonedError, cancellable, raise_if_cancelled
from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm


class Patience:
    """Wants so many layers, and counts how often it was asked."""

    def __init__(self, layers: int) -> None:
        self.layers, self.asked = layers, 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked <= self.layers


def test_it_stops_before_the_first_layer_that_nobody_wants() -> None:
    llm = tiny().copy()
    assert llm.model_info().n_layers > 1
    patience = Patience(1)
    with cancellable(patience), pytest.raises(AbandonedError):
        llm.run_tokens([[1, 2, 3]])
    assert patience.asked == 2


def test_every_layer_asks_once() -> None:
    llm = tiny().copy()
    patience = Patience(1000)
    with cancellable(patience):
        llm.run_tokens([[1, 2, 3]])
    assert patience.asked == llm.model_info().n_layers


def test_the_model_gives_the_same_values_after_it_was_stopped() -> None:
    llm = tiny().copy()
    llm.run_tokens([[1, 2, 3]])
    wanted = llm.residual_out(0), llm.logits()
    with cancellable(Patience(1)), pytest.raises(AbandonedError):
        llm.run_tokens([[4, 5, 6]])
    llm.run_tokens([[1, 2, 3]])
    assert torch.equal(llm.residual_out(0), wanted[0])
    assert torch.equal(llm.logits(), wanted[1])


def test_outside_of_such_a_block_everything_is_wanted() -> None:
    with cancellable(lambda: False), pytest.raises(AbandonedError):
        raise_if_cancelled()
    raise_if_cancelled()


def test_a_block_within_another_wants_what_both_want() -> None:
    with cancellable(Patience(1)), cancellable(Patience(2)):
        raise_if_cancelled()
        with pytest.raises(AbandonedError):
            raise_if_cancelled()


def test_it_may_say_why_the_work_is_to_stop() -> None:
    def refuse() -> bool:
        raise ValueError("words")

    with cancellable(refuse), cancellable(lambda: True), pytest.raises(ValueError, match="words"):
        raise_if_cancelled()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vector_is_unembedded_within_a_pass_and_neither_notices(family: str) -> None:
    llm, rows = tiny(family).copy(), [[1, 2, 3, 4], [5, 6]]
    matrix = torch.linspace(-2, 2, 3 * 64).sin().reshape(3, 64)
    values = [Unembedded(llm.bridged, matrix, normalize=normalize) for normalize in (True, False)]
    assert all(value.may_interrupt for value in values)
    alone, within = [value.tensor() for value in values], list[torch.Tensor]()

    def unembed() -> bool:
        within.extend(value.tensor() for value in values)
        return True

    llm.run_tokens(rows)
    wanted = tensors_of(llm)
    with cancellable(unembed):
        llm.run_tokens(rows)
    assert within
    assert all(torch.equal(found, alone[i % 2]) for i, found in enumerate(within))
    found = tensors_of(llm)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def tensors_of(llm: TransformerLensTransparentLlm) -> dict[str, torch.Tensor]:
    """What the current run has kept, and its logits."""
    capture = llm.values()._capture
    of_layers = {
        f"{i}.{field.name}": getattr(layer, field.name)
        for i, layer in enumerate(capture.layers)
        for field in dataclasses.fields(layer)
    }
    kept = {**of_layers, "residual_out": capture.residual_out, "logits": llm.logits()}
    return {name: tensor for name, tensor in kept.items() if tensor is not None}
