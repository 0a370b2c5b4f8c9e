"""Shapes and dtypes are those of the annotations, checked by jaxtyping and beartype."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import beartype
import jaxtyping
import pytest

from transparent_llm import TransparentLlm

CALLS: dict[str, tuple[Any, ...]] = {
    "model_info": (),
    "batch_size": (),
    "tokens": (),
    "mask": (),
    "logits": (),
    "residual_in": (0,),
    "residual_after_attn": (0,),
    "residual_out": (0,),
    "ffn_out": (0,),
    "decomposed_ffn_out": (1, 0, 2),
    "neuron_activations": (1, 0, 2),
    "neuron_output": (0, 5),
    "attention_matrix": (1, 0, 2),
    "attention_output": (1, 0, 2, 3),
    "attention_output_per_head": (1, 0, 2, 3),
    "decomposed_attn": (1, 0),
}


def checked(llm: TransparentLlm, name: str) -> Callable[..., Any]:
    """The method with the contract's annotations enforced on arguments and result."""
    return partial(_checker(name), llm)


@cache
def _checker(name: str) -> Callable[..., Any]:
    annotated = getattr(TransparentLlm, name)

    def call(self: TransparentLlm, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, name)(*args, **kwargs)

    call.__annotations__ = inspect.get_annotations(annotated, eval_str=True)
    call.__signature__ = inspect.signature(annotated, eval_str=True)  # type: ignore[attr-defined]
    wrapped: Callable[..., Any] = jaxtyping.jaxtyped(typechecker=beartype.beartype)(call)
    return wrapped


@pytest.mark.parametrize("name", list(CALLS))
def test_results_have_the_annotated_shape_and_dtype(name: str, llm: TransparentLlm) -> None:
    result = checked(llm, name)(*CALLS[name])
    assert result is not None


def test_vectors_go_in_and_out_as_annotated(llm: TransparentLlm) -> None:
    info = llm.model_info()
    scores = checked(llm, "unembed")(llm.residual_in(0)[0, 0], True)
    assert scores.shape == (info.d_vocab,)
    assert len(checked(llm, "tokens_to_strings")(llm.tokens()[0])) == 16


def test_sizes_are_those_of_the_model_and_the_run(llm: TransparentLlm) -> None:
    info, n_pos = llm.model_info(), 16
    d_ffn = len(llm.neuron_activations(0, 0, 0))
    assert llm.tokens().shape == (3, n_pos)
    assert llm.logits().shape == (3, n_pos, info.d_vocab)
    assert llm.residual_in(0).shape == (3, n_pos, info.d_model)
    assert llm.decomposed_ffn_out(0, 0, 0).shape == (d_ffn, info.d_model)
    assert llm.attention_matrix(0, 0, 0).shape == (n_pos, n_pos)
    assert llm.decomposed_attn(0, 0).shape == (n_pos, n_pos, info.n_heads, info.d_model)
    assert llm.neuron_output(0, d_ffn - 1).shape == (info.d_model,)


def test_the_checker_itself_refuses_a_wrong_shape(llm: TransparentLlm) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        checked(llm, "unembed")(llm.residual_in(0)[0], True)
