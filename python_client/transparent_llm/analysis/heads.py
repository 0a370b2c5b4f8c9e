"""What the heads of a layer look at: their patterns in one read, scores of known kinds of heads, what they move.

Padding is no part: padded queries and keys are 0, and no score counts them. Results are float32, or float64 for a model
of that dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float

from transparent_llm.analysis import projections
from transparent_llm.analysis.interrupt import check
from transparent_llm.analysis.rows import Row, layer_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import quoted
from transparent_llm.runtime.numerics import wide


def attention_matrices(llm: TransparentLlm, batch_i: int, layer: int) -> Float[torch.Tensor, "head query_pos key_pos"]:
    """Attention probabilities of all heads of a layer: `attention_matrix` of each, with padded queries and keys 0.

    Raises:
        IndexOutOfRangeError: row or layer.
        NotSupportedError: the layer has no heads.
    """
    info, row = llm.model_info(), Row.of(llm, batch_i)
    layer = layer_of(llm, layer)
    found: torch.Tensor | None = None
    for head in range(info.n_heads):
        check()
        matrix = _real_part(llm, row, layer, head)
        if found is None:
            found = matrix.new_zeros(info.n_heads, row.n_pos, row.n_pos)
        found[head, : row.n_tokens, : row.n_tokens] = matrix
    assert found is not None
    return found


def head_scores(llm: TransparentLlm, batch_i: int, layer: int, kind: str = "induction") -> Float[torch.Tensor, "head"]:
    """How much each head of a layer behaves like a known kind of head, on one row of the run.

    For all kinds but entropy: the attention that a token pays to the keys of that kind, averaged over the row's tokens
    that have such a key; 0 where none has.

    * `previous`: the token before;
    * `first`: the first token; every token has it, the first one itself;
    * `self`: the token itself;
    * `duplicate`: all earlier occurrences of the same token;
    * `induction`: all tokens that follow an earlier occurrence of the same token;
    * `entropy`: of the probabilities that a token pays, in nats, averaged over all tokens of the row.

    The masks of previous, duplicate and induction are those of TransformerLens, `detect_head`, which averages over all
    tokens, also those that have no such key. The names are those of Olsson et al., In-context Learning and Induction
    Heads (2022).

    Raises:
        InvalidRequestError: an unknown kind.
        IndexOutOfRangeError: row or layer.
        NotSupportedError: the layer has no heads.
    """
    if kind != _ENTROPY and kind not in MASKS:
        raise InvalidRequestError(
            f"kind {quoted(str(kind))} is unknown; known are {', '.join(KINDS)}", metadata={"argument": "kind"}
        )
    info, row = llm.model_info(), Row.of(llm, batch_i)
    layer = layer_of(llm, layer)
    score = _entropy if kind == _ENTROPY else _Masked(MASKS[kind](llm.tokens()[row.index, : row.n_tokens]))
    found = []
    for head in range(info.n_heads):
        check()
        found.append(score(_real_part(llm, row, layer, head)))
    return torch.stack(found)


def value_weighted_norms(llm: TransparentLlm, batch_i: int, layer: int) -> Float[torch.Tensor, "head target source"]:
    """Length of what each head brought from each source to each target, bias of values included: attention counted by
    what it moved. The probability that a head pays to a token whose value is near nothing does not show here.

    It is the norm of each vector of `decomposed_attn`, in units of the residual stream, as Kobayashi et al., Attention
    is Not Only a Weight (2020), define it.

    Raises:
        IndexOutOfRangeError: row or layer.
        NotSupportedError: the layer has no heads.
    """
    row = Row.of(llm, batch_i)
    layer = layer_of(llm, layer)
    found = projections.value_weighted_norms(llm, row.index, layer)
    found[:, row.n_tokens :] = 0
    found[:, :, row.n_tokens :] = 0
    return found


def _real_part(llm: TransparentLlm, row: Row, layer: int, head: int) -> torch.Tensor:
    matrix = llm.attention_matrix(row.index, layer, head)
    return wide(matrix[: row.n_tokens, : row.n_tokens])


def _entropy(pattern: torch.Tensor) -> torch.Tensor:
    information: torch.Tensor = torch.special.xlogy(pattern, pattern)
    return -information.sum(dim=1).mean()


class _Masked:
    """The mean attention to some keys, over the queries that have one."""

    def __init__(self, keys: torch.Tensor) -> None:
        self._keys = keys
        self._n_queries = max(1, int(keys.any(dim=1).sum()))

    def __call__(self, pattern: torch.Tensor) -> torch.Tensor:
        return torch.where(self._keys.to(pattern.device), pattern, 0).sum() / self._n_queries


def _previous(tokens: torch.Tensor) -> torch.Tensor:
    return _itself(tokens).roll(-1, dims=1).tril(-1)


def _itself(tokens: torch.Tensor) -> torch.Tensor:
    return torch.eye(len(tokens), dtype=torch.bool, device=tokens.device)


def _first(tokens: torch.Tensor) -> torch.Tensor:
    return (torch.arange(len(tokens), device=tokens.device) == 0).expand(len(tokens), -1)


def _duplicate(tokens: torch.Tensor) -> torch.Tensor:
    return (tokens[:, None] == tokens).tril(-1)


def _induction(tokens: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(_duplicate(tokens)[:, :-1], (1, 0))


_ENTROPY = "entropy"
MASKS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType(
    {
        "induction": _induction,
        "previous": _previous,
        "duplicate": _duplicate,
        "first": _first,
        "self": _itself,
    }
)
"""Kind of head -> which keys it looks at [query_pos key_pos], of the tokens of a row."""

KINDS = (*MASKS, _ENTROPY)
