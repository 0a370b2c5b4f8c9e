"""How much of a whole each part accounts for: the whole's norm less the part's distance from it.

`d(part, whole) = ||part - whole + 1e-6||`, and a part's share, before shares are made to sum to 1, is
`max(||whole|| - d(part, whole), 1e-5)`: a part that points away counts next to nothing, and never less. The definition
is that of the information flow routes of Ferrando and Voita (2024, arXiv 2403.00824), with the constants of the LLM
Transparency Tool, which has the 1-norm ("l1"). "l2" is the same with the Euclidean norm, and needs no product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from transparent_llm.analysis.factored import BLOCK_BYTES
from transparent_llm.analysis.interrupt import check
from transparent_llm.errors import InvalidRequestError
from transparent_llm.factors import AttnFactors
from transparent_llm.quoting import quoted
from transparent_llm.runtime.numerics import wide

NORMS = ("l1", "l2")
_EPSILON = 1e-6
_LEAST = 1e-5
_CACHED_BYTES = 2**22
"""On a processor, what is multiplied, subtracted and summed in turn stays in its cache."""

_ONE_THREAD_ELEMENTS = 2**15 - 1
"""The most for which PyTorch wakes no other thread, which comes milliseconds late on a busy machine."""

_FEW_ELEMENTS = 2**24
"""Of all vectors of a layer: one thread is soon through with so many, and waits for no other."""

_GROUPS = 16
"""Of targets that are computed together: a sixteenth more pairs than attention reaches, and fewer operations."""


def checked_norm(norm: str) -> str:
    """The norm, if there is one of that name.

    Raises:
        InvalidRequestError: there is none.
    """
    if norm not in NORMS:
        raise InvalidRequestError(
            f"norm must be one of {', '.join(NORMS)}, got {quoted(str(norm))}", metadata={"argument": "norm"}
        )
    return norm


def shares_of(parts: torch.Tensor, whole: torch.Tensor, norm: str) -> torch.Tensor:
    """Of parts [... d_model] in a whole [... d_model], which are broadcast; before they are made to sum to 1."""
    shares = _share(_size(whole, norm), _exact(_norm(wide(parts) - _shifted(whole), norm)))
    return torch.where(parts.any(-1), shares, _share_of_zeros(whole, norm))


def attn_shares(factors: AttnFactors, whole: torch.Tensor, norm: str) -> Iterator[tuple[slice, torch.Tensor]]:
    """Of all that attention moved, in the stream after it [target d_model]: some targets, and [target source head].

    Parts that no attention reaches count too: each is a part of zeros.
    """
    n_targets, n_sources, n_heads, _ = factors.shape
    step = max(1, BLOCK_BYTES // max(1, 8 * n_sources * n_heads))
    for start in range(0, n_targets, step):
        targets = slice(start, min(start + step, n_targets))
        yield targets, (_l1_shares if norm == "l1" else _l2_shares)(_of_targets(factors, targets), whole[targets])


def _l1_shares(factors: AttnFactors, whole: torch.Tensor) -> torch.Tensor:
    """Only where attention is not zero there is a product to be made, block by block in the same memory."""
    n_targets, n_sources, n_heads, d_model = factors.shape
    weights, shifted, gain = _weights(factors), _shifted(whole), _gain(factors)
    distances = _norm(shifted, "l1")[:, None, None].repeat(1, n_sources, n_heads)  # of parts of zeros
    pairs = max(1, _block_elements(factors, weights) // max(1, n_heads * d_model))
    scratch = weights.new_empty((min(pairs, n_targets * n_sources), n_heads, d_model))
    wanted, scales = shifted[:, None, None], weights.unsqueeze(-1)
    for targets, sources in _blocks(_spans(factors.pattern), pairs):
        check()
        shape = (targets.stop - targets.start, sources.stop - sources.start)
        block = scratch[: shape[0] * shape[1]].view(*shape, n_heads, d_model)
        vectors = factors.value_out[sources]
        if gain is not None:
            vectors = torch.mul(vectors, gain[targets, None, None], out=block)
        torch.addcmul(wanted[targets], scales[targets, sources], vectors, value=-1, out=block)
        torch.sum(block.abs_(), dim=-1, out=distances[targets, sources])
    shares = _share(_size(whole, "l1")[:, None, None], _exact(distances))
    return torch.where(weights == 0, _share_of_zeros(whole, "l1")[:, None, None], shares)


def _l2_shares(factors: AttnFactors, whole: torch.Tensor) -> torch.Tensor:
    """`||w||^2 - ||w' - a u||^2 = 2 a u.w' - a^2 ||u||^2 + (||w||^2 - ||w'||^2)`, where w' is w less the constant: a
    product of matrices, and no vector for a pair of positions."""
    n_targets, n_sources, n_heads, d_model = factors.shape
    weights, shifted, gain = _weights(factors), _shifted(whole), _gain(factors)
    size, moved = _size(whole, "l2"), _size(shifted, "l2")
    dots, squares = (weights.new_empty(weights.shape) for _ in range(2))
    step = max(1, BLOCK_BYTES // max(1, n_heads * d_model * weights.element_size()))
    for start in range(0, n_sources, step):
        check()
        vectors = factors.value_out[start : start + step].flatten(0, 1)
        shape = (-1, min(step, n_sources - start), n_heads)
        aimed = shifted if gain is None else shifted * gain
        dots[:, start : start + step] = (aimed @ vectors.T).reshape(shape)
        squared = vectors.square()
        lengths = squared.sum(-1).expand(n_targets, -1) if gain is None else gain.square() @ squared.T
        squares[:, start : start + step] = lengths.reshape(shape)
    gained = 2 * _exact(weights * dots) - _exact(weights.square() * squares)  # ||w'||^2 - ||w' - a u||^2
    moved, size = moved[:, None, None], size[:, None, None]
    distances = (moved.square() - gained).clamp_(min=0).sqrt_()
    shares = ((size - moved) + gained / (moved + distances).clamp_(min=torch.finfo(gained.dtype).tiny)).clamp_(_LEAST)
    return torch.where(weights == 0, _share_of_zeros(whole, "l2")[:, None, None], shares)


def _share_of_zeros(whole: torch.Tensor, norm: str) -> torch.Tensor:
    """A few millionths of the norm, which rounding would drown: there are many such parts."""
    exact = _exact(whole)
    return _share(_norm(exact, norm), _norm(exact - _EPSILON, norm))


def _share(size: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    return (size - distance).clamp_(min=_LEAST)


def _size(whole: torch.Tensor, norm: str) -> torch.Tensor:
    return _norm(_exact(whole), norm)


def _norm(vectors: torch.Tensor, norm: str) -> torch.Tensor:
    return vectors.abs().sum(-1) if norm == "l1" else vectors.square().sum(-1).sqrt()


def _shifted(whole: torch.Tensor) -> torch.Tensor:
    return wide(whole) - _EPSILON


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    """What many small differences are taken of, in float64 where the device has it."""
    return tensor if tensor.device.type == "mps" else tensor.double()


def _weights(factors: AttnFactors) -> torch.Tensor:
    """Of each vector [target source head], a gain that is a number included."""
    dtype = torch.promote_types(factors.value_out.dtype, torch.float32)
    weights = factors.pattern.permute(1, 2, 0).to(dtype)
    if factors.gain is not None and not factors.gain.ndim:
        weights = weights * factors.gain
    return weights.contiguous()


def _gain(factors: AttnFactors) -> torch.Tensor | None:
    """Of each coordinate of each target [target d_model], if it differs among them."""
    return None if factors.gain is None or not factors.gain.ndim else factors.gain


def _spans(pattern: torch.Tensor) -> list[tuple[int, int]]:
    """For each target the sources, from a first to before a last one, outside which no head attends."""
    reached = (pattern != 0).any(dim=0)
    n_sources = reached.shape[1]
    first = reached.int().argmax(dim=1)
    stop = torch.where(reached.any(dim=1), n_sources - reached.flip(1).int().argmax(dim=1), 0)
    return list(zip(first.tolist(), stop.tolist(), strict=True))


def _blocks(spans: Sequence[tuple[int, int]], pairs: int) -> Iterator[tuple[slice, slice]]:
    """Targets and sources that have all that attention reached, at most so many pairs at a time.

    Neighbouring targets go together, so few that little is computed of what attention does not reach.
    """
    together = min(pairs, max(1, len(spans) // _GROUPS))
    for start in range(0, len(spans), together):
        of_group = [(first, stop) for first, stop in spans[start : start + together] if first < stop]
        if not of_group:
            continue
        end, targets = max(stop for _, stop in of_group), slice(start, min(start + together, len(spans)))
        for low in range(min(first for first, _ in of_group), end, step := pairs // together):
            yield targets, slice(low, min(low + step, end))


def _of_targets(factors: AttnFactors, targets: slice) -> AttnFactors:
    gain = factors.gain
    cut = gain[targets] if gain is not None and gain.ndim else gain
    return AttnFactors(factors.pattern[:, targets], factors.value_out, cut)


def _block_elements(factors: AttnFactors, weights: torch.Tensor) -> int:
    """Of the vectors that are made at a time."""
    n_targets, n_sources, n_heads, d_model = factors.shape
    if weights.device.type != "cpu":
        return BLOCK_BYTES // weights.element_size()
    if torch.get_num_threads() > 1 and n_targets * n_sources * n_heads * d_model <= _FEW_ELEMENTS:
        return _ONE_THREAD_ELEMENTS
    return _CACHED_BYTES // weights.element_size()
