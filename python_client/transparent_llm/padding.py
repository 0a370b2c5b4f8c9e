"""Padded positions of a run, whose values mean nothing: marked as NaN where that was chosen, warned of where not."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import torch

from transparent_llm.errors import NotSupportedError
from transparent_llm.runtime.indexing import counted
from transparent_llm.runtime.run_warning import PaddingWarning, warn
from transparent_llm.wire.methods import METHODS

_POSITIONS = frozenset({"pos", "query_pos", "key_pos", "target", "source"})
"""Axes that go along the positions of a row."""

_Place = Mapping[str, "int | None"]
"""Arguments of a method, by their names."""


class RunPadding:
    """Where a run has padding.

    Args:
        mask: True where a token is [batch pos]. None: the model does not tell.
    """

    def __init__(self, mask: torch.Tensor | None) -> None:
        self._padded = None if mask is None else ~mask.cpu()
        self._has_warned = False

    def apply(
        self,
        name: str,
        indices: Sequence[SupportsIndex | None],
        result: torch.Tensor | Any,
        choice: str,
        axes: Mapping[str, slice] | None = None,
    ) -> None:
        """Do what was chosen with what a method returns, before its caller has it.

        Args:
            name: Of the method.
            indices: All its arguments, none of them out of range.
            result: A tensor, or a tuple of several; it is written to.
            choice: "nan": floating elements that belong to a padded position become NaN. "keep": none does; whoever
                names such a position is warned, once for each run.
            axes: The parts of axes that the result has.

        Raises:
            NotSupportedError: "nan", and the model does not tell padding from tokens.
        """
        method = METHODS[name]
        given = (None if index is None else operator.index(index) for index in indices)
        place = dict(zip(method.arguments, given, strict=True))
        if choice == "keep":
            self._warn(name, place)
            return
        tensors = result if isinstance(result, tuple) else (result,)
        for tensor, dims in zip(tensors, method.result_dims, strict=True):
            if tensor is not None and tensor.is_floating_point() and tensor.ndim == len(dims):
                for where in self._where(dims, place, axes or {}):
                    tensor.masked_fill_(where.to(tensor.device), math.nan)

    def _where(self, dims: Sequence[str], place: _Place, axes: Mapping[str, slice]) -> Iterator[torch.Tensor]:
        """True at padding, along each axis of positions in turn, in shapes that a tensor with these axes expands."""
        if self._padded is None:
            raise NotSupportedError('padding="nan": the served model does not distinguish padding from tokens')
        row, pos = place.get("batch_i"), place.get("pos")
        padded = self._padded[axes.get("batch", slice(None))] if row is None else self._padded[row][None]
        if pos is not None and pos >= 0:  # a negative one counts from the row's last token
            yield padded[0, pos]
        for axis in _POSITIONS.intersection(dims):
            along = padded[:, axes.get(axis, slice(None))]
            sizes = {"batch": along.shape[0], axis: along.shape[1]}
            yield along.reshape([sizes.get(dim, 1) for dim in dims])

    def _warn(self, name: str, place: _Place) -> None:
        row, pos = place.get("batch_i"), place.get("pos")
        if self._has_warned or self._padded is None or row is None or pos is None or pos < 0:
            return
        if self._padded[row, pos]:
            self._has_warned = True
            row, length = counted(row, len(self._padded)), int((~self._padded[row]).sum())
            warn(
                f"{name} was read at position {pos} of row {row}, which has {length} tokens: what stands in padding "
                'means nothing. pos=-1 is the last token of a row; padding="nan" marks such values. This is said once '
                "for each run",
                PaddingWarning,
            )
