"""The sparse autoencoders of one model."""

from __future__ import annotations

from collections.abc import Iterator

from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.quoting import listed, quoted
from transparent_llm_server.models.saes.sae import Sae


class Saes:
    """By their names. Filled when the model is loaded, and then the same for good."""

    def __init__(self) -> None:
        self._by_name: dict[str, Sae] = {}

    def add(self, sae: Sae) -> None:
        """One more."""
        self._by_name[sae.name] = sae

    def __iter__(self) -> Iterator[Sae]:
        return iter(self._by_name.values())

    @property
    def nbytes(self) -> int:
        """Of all their weights."""
        return sum(sae.nbytes for sae in self)

    def get(self, name: str) -> Sae:
        """The one of this name; of an empty one, the only one that there is.

        Raises:
            NotSupportedError: there is none at all.
            InvalidRequestError: there is none of this name, or several and none was named.
        """
        if not self._by_name:
            raise NotSupportedError("the model has no sparse autoencoder: load one with --sae NAME=DIR@SITE")
        if not name and len(self._by_name) == 1:
            return next(iter(self))
        if name not in self._by_name:
            what = f"no sparse autoencoder {quoted(name)}" if name else "several sparse autoencoders, name one"
            raise InvalidRequestError(
                f"the model has {what}; there are {listed([*self._by_name])}", metadata={"argument": "sae"}
            )
        return self._by_name[name]
