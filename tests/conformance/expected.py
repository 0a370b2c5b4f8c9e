"""Comparing what a driver answered with what a scenario expects; each finding is a sentence."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from conformance.comparisons import comparison_findings
from transparent_llm.wire import dtypes
from transparent_llm.wire.frames import bytes_of

Fields = dict[str, Any]
TORCH_BY_NAME = {dtypes.name(dtype): dtype for dtype in dtypes.WIRE_BY_TORCH}
TOLERANCE = 2e-3
"""Of the numbers in scenario files, absolute below 1 and relative above: they were computed on another machine."""


def findings(answer: Fields, expect: Fields) -> Iterator[str]:
    """What differs. Without `error` in `expect`, the call must have gone well."""
    if "error" in expect or "error" in answer:
        yield from error_findings(answer.get("error"), expect.get("error"))
        return
    got = answer["ok"]
    if "value" in expect and got.get("value") != expect["value"]:
        yield f"answered {got.get('value')!r}, not {expect['value']!r}"
    if "value_has" in expect:
        yield from _subset_findings(got.get("value"), expect["value_has"], "value")
    if "generated" in expect:
        yield from _generated_findings(got.get("value"), expect["generated"])
    if "compared" in expect:
        yield from comparison_findings(got.get("value"), expect["compared"], TOLERANCE)
    if "tensor" in expect:
        yield from _number_findings(got.get("tensor"), expect["tensor"])
    if "parts" in expect:
        yield from _parts_findings(got, expect["parts"])
    if "n_seconds" in expect:
        yield from _seconds_findings(got.get("seconds"), expect["n_seconds"])
    if "progress" in expect:
        yield from _progress_findings(got.get("progress"), expect["progress"])


def _generated_findings(got: Any, wanted: list[list[int]]) -> Iterator[str]:
    """Token ids of each row, as they came step by step."""
    steps = got.get("steps", []) if isinstance(got, dict) else []
    rows = [[step[row]["token_id"] for step in steps if step[row]] for row in range(len(wanted))]
    if rows != wanted:
        yield f"goes on with {rows}, not {wanted}"


def tensor_findings(got: Fields | None, wanted: torch.Tensor, dims: tuple[str, ...] | None) -> Iterator[str]:
    """Against the very bits, and against the axes' names where the client keeps them."""
    if got is None:
        yield "answered no tensor"
        return
    described = (got["dtype"], list(got["shape"]))
    if described != (dtypes.name(wanted.dtype), list(wanted.shape)):
        yield f"is {described}, not {(dtypes.name(wanted.dtype), list(wanted.shape))}"
        return
    if dims is not None and list(got["dims"]) != list(dims):
        yield f"has the axes {got['dims']}, not {list(dims)}"
    held = wanted.contiguous()
    if base64.b64decode(got["data"]) != bytes_of(held):
        yield "has other bits than the model computes"
    yield from _decoded_findings(got, wanted)


def _decoded_findings(got: Fields, wanted: torch.Tensor) -> Iterator[str]:
    """The numbers that the client makes of the bits."""
    numbers = bytearray(base64.b64decode(got["values"]))
    if len(numbers) != 8 * wanted.numel():
        yield f"gives {len(numbers)} bytes of numbers for {wanted.numel()} elements"
        return
    decoded = torch.frombuffer(numbers, dtype=torch.float64) if numbers else torch.empty(0, dtype=torch.float64)
    if not torch.equal(torch.nan_to_num(decoded), torch.nan_to_num(wanted.to(torch.float64).flatten())):
        yield "gives other numbers than its bits mean"
    if not torch.equal(decoded.isnan(), wanted.to(torch.float64).flatten().isnan()):
        yield "is NaN at other places"


def _number_findings(got: Fields | None, wanted: Fields) -> Iterator[str]:
    """Against the numbers in the file: `at` has some of them, by their place in C order."""
    if got is None:
        yield "answered no tensor"
        return
    for name in ("dtype", "shape", "dims"):
        if got[name] != wanted[name]:
            yield f"has {name} {got[name]}, not {wanted[name]}"
            return
    numbers = memoryview(base64.b64decode(got["values"])).cast("d")
    for place, number in wanted["at"].items():
        if not math.isclose(numbers[int(place)], number, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"has {numbers[int(place)]} at {place}, not {number}"


def _parts_findings(got: Fields, wanted: Fields) -> Iterator[str]:
    """Of several tensors, by their names, or of one."""
    came = got.get("parts") or dict.fromkeys(wanted, got.get("tensor"))
    if came.keys() != wanted.keys():
        yield f"has the parts {sorted(came)}, not {sorted(wanted)}"
        return
    for name, numbers in wanted.items():
        yield from (f"{name}: {finding}" for finding in _number_findings(came[name], numbers))


def error_findings(got: Fields | None, wanted: Fields | None) -> Iterator[str]:
    """What differs of two errors, or that there is only one."""
    if wanted is None:
        yield f"failed with {got}"
        return
    if got is None:
        yield f"went well, where {wanted['class']} was to be raised"
        return
    for name in ("class", "reason"):
        if got.get(name) != wanted[name]:
            yield f"raised {name} {got.get(name)!r}, not {wanted[name]!r}: {got.get('message')}"
    for word in wanted.get("message_has", []):
        if word not in got["message"]:
            yield f"says {got['message']!r}, without {word!r}"
    yield from _subset_findings(got.get("metadata"), wanted.get("metadata", {}), "metadata")
    if "retry_after_s" in wanted and got.get("retry_after_s") != wanted["retry_after_s"]:
        yield f"says to try again after {got.get('retry_after_s')}, not {wanted['retry_after_s']}"


def _subset_findings(got: Any, wanted: Any, where: str) -> Iterator[str]:
    """All that is wanted is there; more may be."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key, value in wanted.items():
            yield from _subset_findings(got.get(key), value, f"{where}.{key}")
    elif isinstance(wanted, list) and isinstance(got, list) and len(got) == len(wanted):
        for index, value in enumerate(wanted):
            yield from _subset_findings(got[index], value, f"{where}[{index}]")
    elif got != wanted:
        yield f"{where} is {got!r}, not {wanted!r}"


def _seconds_findings(told: Any, count: int) -> Iterator[str]:
    if not isinstance(told, list) or len(told) != count or not all(0 < seconds < 60 for seconds in told):
        yield f"took {told}, not {count} times of some seconds"


def _progress_findings(told: Any, wanted: Fields) -> Iterator[str]:
    """Reports of a growing count, at least so many of them, the last one of everything."""
    if not isinstance(told, list) or len(told) < wanted["at_least"]:
        yield f"reported {told}, where {wanted['at_least']} reports were to come"
        return
    received = [count for count, _ in told]
    if (
        any(later <= earlier for earlier, later in pairwise(received))
        or {total for _, total in told} != {wanted["total"]}
        or received[-1] != wanted["total"]
    ):
        yield f"reported {told[:3]} ... {told[-3:]}, not a growing count that ends with {wanted['total']}"
