"""Vectors of the residual stream on their way to the vocabulary, as many at a time as memory should hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.interrupt import check
from transparent_llm.analysis.readout import readout_of
from transparent_llm.contract import TransparentLlm

NORMALIZE = ("own", "frozen", "none")
"""What is done to a vector before it is unembedded: see `layer_lens`."""

_BLOCK_BYTES = 2**25
"""Of scores that are in memory at a time."""


def in_blocks(llm: TransparentLlm, indices: Sequence[int], besides: int = 0) -> Iterator[list[int]]:
    """Indices of vectors, some at a time, whose scores are made together; `besides`: other numbers for each vector."""
    step = max(1, _BLOCK_BYTES // (4 * (llm.model_info().d_vocab + besides)))
    for start in range(0, len(indices), step):
        check()
        yield list(indices[start : start + step])


def scores(
    llm: TransparentLlm,
    vectors: Float[torch.Tensor, "n d_model"],
    normalize: str = "own",
    output: Float[torch.Tensor, "n d_model"] | None = None,
    scale: Float[torch.Tensor, "n"] | None = None,
) -> Float[torch.Tensor, "n vocab"]:
    """Scores of the whole vocabulary, in float32.

    Args:
        llm: Whose last step is taken.
        vectors: Of the residual stream.
        normalize: One of `NORMALIZE`.
        output: What leaves the last layer at the position of each vector, whose scale "frozen" takes.
        scale: What it takes instead, in a run in which that was frozen.

    Raises:
        InvalidRequestError: `normalize` is not known.
        NotSupportedError: "frozen", and the implementation cannot say how its logits are made.
    """
    checked_normalize(normalize)
    if normalize != "frozen":
        return llm.unembed(vectors, normalize == "own").float()
    assert output is not None
    readout = readout_of(llm, [0])
    x = readout.normalized(vectors, readout.scale(output) if scale is None else scale)
    bias = llm.unembed(torch.zeros_like(x[:1]), False)
    return (llm.unembed(x, False) - bias).float()


def checked_normalize(normalize: str) -> str:
    """One of `NORMALIZE`.

    Raises:
        InvalidRequestError: it is none.
    """
    return checked_choice("normalize", normalize, NORMALIZE)
