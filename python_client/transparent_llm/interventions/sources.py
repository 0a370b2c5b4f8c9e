"""Other runs that edits take something from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from transparent_llm.interventions.intervention import Intervention
from transparent_llm.interventions.vector import Vector


def sources_of(edits: Sequence[Intervention]) -> tuple[object, ...]:
    """The objects whose current runs are meant, each once."""
    return tuple(dict.fromkeys(source for edit in edits for source in _within(edit.operation)))


def _within(part: object) -> Iterator[object]:
    for field in dataclasses.fields(part):  # type: ignore[arg-type]  # operations and vectors are
        value = getattr(part, field.name)
        if isinstance(value, Vector):
            yield from _within(value)
        elif field.name == "source":
            yield value
