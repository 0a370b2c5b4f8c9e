"""Other runs, and kept vectors, that edits take something from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from transparent_llm.contract import TransparentLlm
from transparent_llm.interventions.intervention import Intervention
from transparent_llm.interventions.kept import KeptVector
from transparent_llm.interventions.operation import Freeze
from transparent_llm.interventions.vector import Vector


def sources_of(edits: Sequence[Intervention]) -> tuple[object, ...]:
    """The objects whose current runs are meant, each once."""
    return tuple(dict.fromkeys(source for edit in edits for source in _within(edit.operation)))


def sources_of_vector(vector: Vector) -> tuple[object, ...]:
    """The same of one vector."""
    return tuple(dict.fromkeys(_within(vector)))


def with_unedited(edits: Sequence[Intervention], unedited: Callable[[], TransparentLlm]) -> tuple[Intervention, ...]:
    """The same edits, where those that freeze what the same input has without edits know the run of it, which is made
    once if there are any."""
    if not any(_is_of_same_input(edit) for edit in edits):
        return tuple(edits)
    frozen = Freeze(unedited())
    return tuple(dataclasses.replace(edit, operation=frozen) if _is_of_same_input(edit) else edit for edit in edits)


def _is_of_same_input(edit: Intervention) -> bool:
    return isinstance(edit.operation, Freeze) and edit.operation.source is None


def kept_in(edits: Sequence[Intervention]) -> dict[str, KeptVector]:
    """The kept vectors that edits use, by digest."""
    return {part.digest: part for edit in edits for part in _parts(edit.operation) if isinstance(part, KeptVector)}


def kept_in_vector(vector: Vector) -> dict[str, KeptVector]:
    """The same of one vector."""
    return {part.digest: part for part in (vector, *_parts(vector)) if isinstance(part, KeptVector)}


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
