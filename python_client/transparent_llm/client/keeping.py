"""The part of the remote object that keeps vectors on the server, for edits."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch

from transparent_llm.client.connected import Connected
from transparent_llm.interventions.kept import KeptVector, checked_name, kept
from transparent_llm.interventions.vector import Vector
from transparent_llm.wire import requests, responses


class RemoteKeeping(Connected):
    """Vectors of the caller: see `RemoteTransparentLlm`."""

    def keep_vector(self, name: str, vector: Vector | torch.Tensor | Iterable[float]) -> KeptVector:
        """Send a vector once, for edits of any number of runs; one that had the name is dropped.

        The server may forget it, as it may a run; then it is sent again by itself, where what this returns is used.

        Args:
            name: Up to 128 printable characters.
            vector: Floating numbers, [d] or [n d] with a row for each position that is selected.

        Raises:
            InvalidRequestError: a name that none can be, or numbers that are no vector.
            TooLargeError: too many numbers.
        """
        self._shared.models.require("kept_vectors")
        made = kept(name, vector)
        assert made.values is not None
        self._calls.unary(
            "KeepVector", requests.keep_vector(name, made.values), partial(responses.kept, digest=made.digest)
        )
        return made

    def kept_vectors(self) -> dict[str, KeptVector]:
        """By name, those that the server keeps for the caller: for edits too, but their numbers are not here, so that
        they cannot be sent again."""
        self._shared.models.require("kept_vectors")
        return {
            vector.name: vector
            for vector in self._calls.unary("ListVectors", requests.list_vectors(), responses.vectors)
        }

    def drop_vector(self, name: str) -> bool:
        """Tell the server that a vector is not needed any more; whether there was one."""
        self._shared.models.require("kept_vectors")
        return self._calls.unary("DropVector", requests.drop_vector(checked_name(name)), responses.dropped)
