"""Golden vectors: messages as literal bytes, and what must come of them. No server is involved."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path

from conformance.driver import Driver
from conformance.expected import Fields, error_findings

FOLDER = Path(__file__).parent / "vectors"


def vectors(name: str, folder: Path = FOLDER) -> list[Fields]:
    """The cases of one file: "tensors", "streams" or "errors"."""
    cases: list[Fields] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return cases


def names() -> list[str]:
    """Of all files."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def vector_findings(driver: Driver, name: str) -> Iterator[str]:
    """What a client makes otherwise than it must of the cases of one file."""
    for case in vectors(name):
        check = _decode_error if "code" in case else _decode
        for finding in check(driver, case):
            yield f"{case['case']}: {finding}"


def _decode(driver: Driver, case: Fields) -> Iterator[str]:
    streams = [[base64_of(message["bytes"]) for message in stream] for stream in case["streams"]]
    limit = {"max_bytes": case["max_bytes"]} if "max_bytes" in case else {}
    answer = driver.ask("decode", streams=streams, **limit)
    if "error" in case or "error" in answer:
        yield from error_findings(answer.get("error"), case.get("error"))
        return
    got = answer["ok"]
    if got["resumes"] != case.get("resumes", []):
        yield f"asks to go on at {got['resumes']}, not {case.get('resumes', [])}"
    if len(got["tensors"]) != len(case["tensors"]):
        yield f"has {len(got['tensors'])} tensors, not {len(case['tensors'])}"
    for tensor, wanted in zip(got["tensors"], case["tensors"], strict=False):
        yield from _tensor_findings(tensor, wanted)


def _tensor_findings(got: Fields, wanted: Fields) -> Iterator[str]:
    for name in ("name", "dtype", "shape"):
        if got[name] != wanted[name]:
            yield f"{name} is {got[name]}, not {wanted[name]}"
    if base64.b64decode(got["data"]).hex() != wanted["data"]:
        yield f"elements are {base64.b64decode(got['data']).hex()}, not {wanted['data']}"
    numbers = [float(number) for number in wanted["values"]]
    decoded = base64.b64decode(got["values"])
    if decoded != struct.pack(f"<{len(numbers)}d", *numbers) and not _same(decoded, numbers):
        yield f"numbers are {list(memoryview(decoded).cast('d'))}, not {numbers}"


def _same(decoded: bytes, numbers: list[float]) -> bool:
    """NaN has many bit patterns."""
    if len(decoded) != 8 * len(numbers):
        return False
    got = struct.unpack(f"<{len(numbers)}d", decoded)
    return all(repr(a) == repr(b) for a, b in zip(got, numbers, strict=True))


def _decode_error(driver: Driver, case: Fields) -> Iterator[str]:
    details = None if case["details"] is None else base64_of(case["details"])
    answer = driver.ask("decode_error", code=case["code"], message=case["message"], details=details)
    yield from error_findings(answer["ok"]["error"], case["error"])


def base64_of(hexadecimal: str) -> str:
    """As the driver's protocol has bytes."""
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()
