"""A vector of the residual stream, or some of them, as a caller gives them to `unembed`."""

from __future__ import annotations

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import kind_of


def require_residual(t: object, normalize: object) -> None:
    """Refuse what is no tensor, before it is looked at as one.

    Raises:
        InvalidRequestError: something else, such as an array or a list, or a `normalize` that is no yes or no.
    """
    if not isinstance(t, torch.Tensor):
        raise InvalidRequestError(
            f"unembed takes a torch.Tensor as t, got {kind_of(t)}: write torch.as_tensor(t)",
            reason="INVALID_DTYPE",
            metadata={"got": type(t).__name__},
        )
    if t.layout is not torch.strided:
        raise InvalidRequestError(
            f"unembed takes a dense tensor as t, got one of layout {t.layout}: write t.to_dense()",
            reason="INVALID_DTYPE",
            metadata={"got": str(t.layout)},
        )
    if normalize is None or isinstance(normalize, str):
        raise InvalidRequestError(f"normalize must be True or False, got {kind_of(normalize)}")
