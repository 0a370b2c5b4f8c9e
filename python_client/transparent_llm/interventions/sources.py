"""Other runs, and kept vectors, that edits take something from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from transparent_llm.interventions.intervention import Intervention
from transparent_llm.interventions.kept import KeptVector
from transparent_llm.interventions.vector import Vector


def sources_of(edits: Sequence[Intervention]) -> tuple[object, ...]:
    """The objects whose current runs are meant, each once."""
    return tuple(dict.fromkeys(source for edit in edits for source in _within(edit.operation)))


def kept_in(edits: Sequence[Intervention]) -> dict[str, KeptVector]:
    """The kept vectors that edits use, by digest."""
    return {part.digest: part for edit in edits for part in _parts(edit.operation) if isinstance(part, KeptVector)}


def _parts(part: object) -> Iterator[Vector]:
    for field in dataclasses.fields(part):  # type: ignore[arg-type]  # operations and vectors are
        value = getattr(part, field.name)
        if isinstance(value, Vector):
            yield value
            yield from _parts(value)


def _within(part: object) -> Iterator[object]:
    for field in dataclasses.fields(part):  # type: ignore[arg-type]  # operations and vectors are
        value = getattr(part, field.name)
        if isinstance(value, Vector):
            yield from _within(value)
        elif field.name == "source":
            yield value
