"""Comparisons of two runs as scenarios ask for them, and what differs of two answers (README.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from conformance.edits import ObjectOf

Fields = dict[str, Any]


def compared(llm: Any, request: Fields, object_of: ObjectOf) -> list[Fields]:
    """What a run says of the next token beside another one, row by row."""
    rows = llm.compare(object_of(request["other"]), request.get("from_pos"))
    return [{**asdict(row), "kl_by_pos": list(row.kl_by_pos)} for row in rows]


def comparison_findings(got: Any, wanted: Sequence[Fields], tolerance: float) -> Iterator[str]:
    """What differs of all that is wanted of each row; divergences, absolute below 1 and relative above, by more than
    this."""
    if not isinstance(got, list) or len(got) != len(wanted):
        yield f"compares {got}, not {len(wanted)} rows"
        return
    for number, (row, expected) in enumerate(zip(got, wanted, strict=True)):
        for name, value in expected.items():
            if not _is_close(row.get(name), value, tolerance):
                yield f"has {name} {row.get(name)!r} in row {number}, not {value!r}"


def _is_close(got: Any, wanted: Any, tolerance: float) -> bool:
    if isinstance(wanted, list):
        return (
            isinstance(got, list)
            and len(got) == len(wanted)
            and all(map(_is_close, got, wanted, [tolerance] * len(got)))
        )
    if isinstance(wanted, float):
        return isinstance(got, int | float) and math.isclose(got, wanted, rel_tol=tolerance, abs_tol=tolerance)
    return bool(got == wanted)
