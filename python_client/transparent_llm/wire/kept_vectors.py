"""Kept vectors on the wire."""

from __future__ import annotations

from collections.abc import Sequence

from transparent_llm.interventions.kept import KeptVector, checked_name
from transparent_llm.wire import digests, dtypes
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.shape import checked_shape


def kept_to_wire(kept: Sequence[KeptVector]) -> list[service_pb2.KeptVector]:
    """Kept vectors as messages, without their numbers."""
    return [
        service_pb2.KeptVector(
            name=vector.name, digest=vector.digest, dtype=dtypes.to_wire(vector.dtype), shape=vector.shape
        )
        for vector in kept
    ]


def kept_from_wire(messages: Sequence[service_pb2.KeptVector]) -> tuple[KeptVector, ...]:
    """Kept vectors, without their numbers.

    Raises:
        InvalidRequestError: a name, type or shape that none can have.
        InternalError: a digest that is none.
    """
    return tuple(
        KeptVector(
            checked_name(m.name), digests.checked(m.digest), dtypes.from_wire(m.dtype), tuple(checked_shape(m.shape))
        )
        for m in messages
    )
