"""Several analyses of a run: asked of the server in one stream where it computes them, otherwise computed here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.analysis.uncut import require_uncut
from transparent_llm.contract import TransparentLlm


@runtime_checkable
class FetchesAnalyses(Protocol):
    """An implementation whose server may compute analyses."""

    def has_analyses(self) -> bool:
        """Whether it does."""

    def fetch(self, reads: Sequence[Any]) -> list[Any]:
        """Many values in one stream."""

    def fetch_each(self, reads: Sequence[Any]) -> Iterator[Any]:
        """The same, each as soon as it has come."""


@runtime_checkable
class _OfServer(Protocol):
    def require_feature(self, feature: str) -> None:
        """Refuse what its server is too old for."""


def require_feature(llm: TransparentLlm, feature: str) -> None:
    """Look whether the server, where there is one, can do this.

    Raises:
        NotSupportedError: it is too old.
    """
    if isinstance(llm, _OfServer):
        llm.require_feature(feature)


def read_all(llm: TransparentLlm, reads: Sequence[tuple[Any, ...]]) -> list[Any]:
    """What each of these answers: the name of an analysis, and its arguments in their order.

    Raises:
        InvalidRequestError: within a block that cuts axes of what is read.
    """
    require_uncut(llm)
    if isinstance(llm, FetchesAnalyses) and llm.has_analyses():
        return llm.fetch(reads)
    return [ANALYSES[name](llm, *arguments) for name, *arguments in reads]


def read_each(llm: TransparentLlm, reads: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """As `read_all`, each as soon as it is computed; all of the run that is current now."""
    require_uncut(llm)
    if isinstance(llm, FetchesAnalyses) and llm.has_analyses():
        return llm.fetch_each(reads)
    own = llm.copy()
    return (ANALYSES[name](own, *arguments) for name, *arguments in reads)
