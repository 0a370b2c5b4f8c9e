"""Analyses look at whole runs: they are refused where a block of code cuts what is read."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError


@runtime_checkable
class CutsValues(Protocol):
    """An implementation of which parts of axes can be asked for."""

    def cut_axes(self) -> tuple[str, ...]:
        """The axes that are cut just now."""


def require_uncut(llm: TransparentLlm) -> None:
    """Raises InvalidRequestError within a block that cuts axes."""
    if isinstance(llm, CutsValues) and (axes := llm.cut_axes()):
        raise InvalidRequestError(
            f"an analysis looks at whole runs, and this reading block cuts {', '.join(axes)}: call it outside of the "
            "block, or within a block that gives a dtype alone",
            metadata={"axes": ",".join(axes)},
        )
