"""Generations as scenarios ask for them, and what is answered to them (README.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from conformance.edits import ObjectOf, edits_of
from transparent_llm.generation import NextToken, Step

Fields = dict[str, Any]
TOLERANCE = 1e-5
"""Of log-probabilities, absolute: a step is computed beside others in the server, and alone in the twin."""


def generated(llm: Any, request: Fields, object_of: ObjectOf) -> list[Step]:
    """All steps of the generation of a call."""
    options = dict(request["generation"])
    options["edits"] = edits_of(request.get("edits", ()), object_of)
    prompts = options.pop("prompts", None)
    if prompts and isinstance(prompts[0], list):
        return list(llm.generate_tokens(prompts, **options))
    return list(llm.generate(prompts, **options))


def steps_written(steps: Sequence[Step]) -> list[list[Fields | None]]:
    """As a driver answers them."""
    return [[None if token is None else _written(token) for token in step.tokens] for step in steps]


def step_findings(got: Any, wanted: list[list[Fields | None]]) -> Iterator[str]:
    """What differs of the steps that a client had: nothing but the last digits of numbers may."""
    if not isinstance(got, list) or [len(step) for step in got] != [len(step) for step in wanted]:
        yield f"has the steps {got}, not {wanted}"
        return
    for number, (step, of_step) in enumerate(zip(got, wanted, strict=True)):
        for row, (token, of_row) in enumerate(zip(step, of_step, strict=True)):
            if not _are_alike(token, of_row):
                yield f"has {token} in row {row} of step {number}, not {of_row}"


def _written(token: NextToken) -> Fields:
    fields = token._asdict()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _are_alike(got: Any, wanted: Fields | None) -> bool:
    if got is None or wanted is None:
        return got is wanted
    if got.keys() != wanted.keys() or len(got["top_logprobs"]) != len(wanted["top_logprobs"]):
        return False
    numbers = [("logprob", got["logprob"], wanted["logprob"])]
    numbers += [("top", *pair) for pair in zip(got["top_logprobs"], wanted["top_logprobs"], strict=True)]
    words = ("token_id", "text", "finished", "top_ids")
    are_near = all(math.isclose(mine, theirs, rel_tol=0, abs_tol=TOLERANCE) for _, mine, theirs in numbers)
    return are_near and all(got[name] == wanted[name] for name in words)
