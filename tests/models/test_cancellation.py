"""A forward pass that nobody waits for stops at the next layer."""

from __future__ import annotations

import pytest
import torch

from support.servers.servers import tiny
from transparent_llm_server.models.forward.cancellation import AbandonedError, cancellable, raise_if_cancelled


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
