"""The sentences that a server's operator offers to everyone who may call."""

from __future__ import annotations

from collections.abc import Sequence

from transparent_llm.description import DatasetDescription
from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import quoted
from transparent_llm_server.config.dataset import datasets_of


class Datasets:
    """From `NAME=FILE`, read once.

    Raises:
        InvalidRequestError: as `datasets_of`.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._by_name = datasets_of(texts)

    def describe(self) -> tuple[DatasetDescription, ...]:
        """Their names and lengths."""
        return tuple(DatasetDescription(name, len(found)) for name, found in self._by_name.items())

    def sentences(self, name: str) -> tuple[str, ...]:
        """Of one of them.

        Raises:
            InvalidRequestError: there is none of this name.
        """
        if name not in self._by_name:
            offered = ", ".join(self._by_name) or "none: the operator offers them with --dataset NAME=FILE"
            raise InvalidRequestError(f"there is no data set {quoted(name)}; there are {offered}")
        return self._by_name[name]
