"""An analysis is the same wherever it is computed: by the object here, by a server, or here of what a server gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from support.models.batch import ROWS
from support.models.tensors import assert_same_bits
from support.servers.backends import Backend, local_model
from transparent_llm import RemoteTransparentLlm, TransparentLlm
from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.errors import (
    IndexOutOfRangeError,
    InvalidRequestError,
    NotSupportedError,
    TooLargeError,
    TransparentLlmError,
)
from transparent_llm.testing import serve_in_process

READS: list[tuple[Any, ...]] = [
    ("layer_lens", 0, 1, None, "out", "out", "own", (), 3, 2, (5, 6), True),
    ("layer_lens", 1, -1, 0, "after_attn", "in", "none", (-1, 0), 2),
    ("layer_lens", 2, 0, None, "in"),
    ("token_logprobs", 0),
    ("token_logprobs", 2),
    ("attn_contributions", 1, 0),
    ("attn_contributions", 0, -1, "l2"),
    ("contribution_edges", 0, 1, 0.04, True),
    ("contribution_edges", 2, 0, 0.01, False, "l2"),
    ("contribution_edges_to", 0, 1, (-1, 2, 3), 0.04, True),
    ("contribution_edges_to", 2, 0, (), 0.01, False, "l2"),
    ("neuron_contributions", 0, 1, -1, 5),
    ("logit_terms", 1, -1, 3),
    ("logit_terms", 0, 4, 3, 8),
    ("logit_attribution", 0, 1, -1, 3),
    ("logit_attribution", 1, 0, 2, 3, 8),
    ("source_attribution", 0, 1, -1, 3, 8),
    ("neuron_attribution", 0, 0, -1, 3, None, 4),
    ("attention_matrices", 1, 1),
    ("head_scores", 0, 1),
    ("head_scores", 1, 0, "entropy"),
    ("value_weighted_norms", 0, 1),
    ("features", 0, "", (), 2),
    ("feature_activations", 0, "", (1,)),
]
"""At least one of each."""


def tensors(value: object) -> list[torch.Tensor | None]:
    return list(value) if isinstance(value, tuple) else [value]  # type: ignore[list-item]


def require_same(got: object, wanted: object) -> None:
    assert type(got) is type(wanted)
    for a, b in zip(tensors(got), tensors(wanted), strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert_same_bits(a, b)


def answer(llm: TransparentLlm, read: tuple[Any, ...]) -> object:
    """As a caller gets it; the kind of error where the model lacks what is needed."""
    try:
        if isinstance(llm, RemoteTransparentLlm):
            return llm.fetch([read])[0]
        return ANALYSES[read[0]](llm, *read[1:])
    except TransparentLlmError as error:
        return type(error)


def test_all_are_here() -> None:
    assert {name for name, *_ in READS} == ANALYSES.keys()


def test_wherever_it_is_computed(backend: Backend, family: str, family_folders: dict[str, Path]) -> None:
    local, llm = local_model(family_folders[family]).copy(), backend.open(family)
    for each in (local, llm):
        each.run_tokens(ROWS)
    for read in READS:
        wanted = answer(local, read)
        got = answer(llm, read)
        if isinstance(wanted, type):
            assert got is wanted, read
        else:
            require_same(got, wanted)


def require_near(got: object, wanted: object) -> None:
    """Within rounding: sums are made in another order where no factors are had."""
    for a, b in zip(tensors(got), tensors(wanted), strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_of_what_a_server_gives(family_folders: dict[str, Path]) -> None:
    """Where the server computes no analyses the client does, of the values: all but those of logits, for which it has
    no weights."""
    local = local_model(family_folders["gpt2"]).copy()
    with serve_in_process(local.copy()) as llm:
        for each in (local, llm):
            each.run_tokens(ROWS)
        for name, *arguments in READS:
            if name in ("logit_terms", "logit_attribution", "source_attribution", "neuron_attribution"):
                with pytest.raises(NotSupportedError, match="cannot be attributed"):
                    ANALYSES[name](llm, *arguments)
            elif name in ("features", "feature_activations"):
                with pytest.raises(NotSupportedError, match="computes no sparse autoencoders"):
                    ANALYSES[name](llm, *arguments)
            else:
                require_near(ANALYSES[name](llm, *arguments), ANALYSES[name](local, *arguments))


def test_parts_are_cut_and_planned_as_any_value(family_folders: dict[str, Path]) -> None:
    read = READS[0]
    with serve_in_process(local_model(family_folders["gpt2"]).copy()) as llm:
        llm.run_tokens(ROWS)
        (whole,), (planned,) = llm.fetch([read]), llm.plan([read])
        assert planned.nbytes == sum(tensor.nbytes for tensor in tensors(whole) if tensor is not None)
        with llm.reading(pos=slice(2, 5), rank=slice(1, None)):
            (part,) = llm.fetch([read])
        assert_same_bits(part.top_ids, whole.top_ids[2:5, 1:])
        assert_same_bits(part.entropy, whole.entropy[2:5])


@pytest.mark.parametrize(
    ("kind", "read", "words"),
    [
        (IndexOutOfRangeError, ("layer_lens", 0, 9), "layer 9 is out of range"),
        (IndexOutOfRangeError, ("layer_lens", 0, 0, 9), "minus_layer 9 is out of range"),
        (IndexOutOfRangeError, ("token_logprobs", 3), "batch_i 3 is out of range"),
        (InvalidRequestError, ("layer_lens", 0, 0, None, "mid"), 'one of "out", "in", "after_attn", got .mid.'),
        (InvalidRequestError, ("layer_lens", 0, 0, None, 1), "got int 1"),
        (InvalidRequestError, ("layer_lens", 0, 0, None, "out", "out", "own", 3), "list of integers, got int 3"),
        (InvalidRequestError, ("layer_lens", 0, 0, None, "out", "out", "own", "3"), "list of integers, got str '3'"),
        (InvalidRequestError, ("layer_lens", 0, 0, None, "out", "out", "own", (), -1), "k -1 is out of range"),
        (
            InvalidRequestError,
            ("layer_lens", 0, 0, None, "out", "out", "own", (), 501),
            "k must be 0 to 500, .* got 501",
        ),
        (
            InvalidRequestError,
            ("layer_lens", 0, 0, None, "out", "out", "own", (), 1, 0, (), 2),
            "True or False, got int 2",
        ),
        (TooLargeError, ("layer_lens", 0, 0, None, "out", "out", "own", range(5000)), "4097 or more numbers"),
        (TooLargeError, ("layer_lens", 0, 0, None, "out", "out", "own", (), 2**32 - 1), "this read is"),
        (InvalidRequestError, ("logit_terms", 0, 0, -1), "token -1 is not in the vocabulary"),
        (InvalidRequestError, ("logit_terms", 0, 0), "LogitTerms needs token"),
        (InvalidRequestError, ("contribution_edges", 0, 0, float("nan")), "finite number, got float nan"),
        (InvalidRequestError, ("contribution_edges", 0, 0, 1.5), "from 0 to 1, got 1.5"),
        (InvalidRequestError, ("neuron_contributions", 0, 0, 0, 0), "k must be 1 to .* got 0"),
        (InvalidRequestError, ("neuron_contributions", 0, 0, 0, 10_000), "k must be 1 to .* got 10000"),
        (InvalidRequestError, ("neuron_attribution", 0, 0, 0, 3, None, 10_000), "k must be 1 to .* got 10000"),
        (InvalidRequestError, ("token_logprobs", 0, 1), "token_logprobs takes batch_i; got 2 arguments"),
    ],
)
def test_what_cannot_be_is_refused(
    kind: type[Exception], read: tuple[Any, ...], words: str, family_folders: dict[str, Path]
) -> None:
    with serve_in_process(local_model(family_folders["gpt2"]).copy()) as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(kind, match=words):
            llm.fetch([read])
