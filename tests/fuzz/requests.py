"""Requests that no client would send, made from the descriptors of the messages."""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

_INTEGERS = (-(2**63), -(2**31), -(2**31) - 1, -2, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "sint32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "sint64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
    "enum": (-(2**31), 2**31 - 1),
}
_KINDS = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}
_BYTES = st.binary(max_size=64) | st.sampled_from([bytes(256), b"\0" * 100_000])


class Requests:
    """Strategies for the messages of a service; most name a run and a model that are there."""

    def __init__(self, run_id: str, model: str) -> None:
        odd = st.sampled_from(["", "x" * 100_000, "\0", "../..", "é\n"])
        self._plain: dict[str, st.SearchStrategy[Any]] = {
            "string": st.sampled_from([run_id, model, "Hello world"]) | odd | st.text(),
            "bytes": _BYTES,
            "bool": st.booleans(),
            "double": st.floats(),
            "float": st.floats(width=32),
        }
        self._mostly = {"run_id": run_id, "other_run_id": run_id, "model": model}

    def messages(self, descriptor: Any, depth: int = 0) -> st.SearchStrategy[Any]:
        """Messages of a type: each field there or not, with small or extreme values."""
        fields = {
            field.name: self._field(field, depth) for field in descriptor.fields if depth < 4 or not field.message_type
        }
        named = {name: st.just(self._mostly[name]) for name in fields if name in self._mostly}
        cls = message_factory.GetMessageClass(descriptor)
        any_ = st.fixed_dictionaries({}, optional=fields)
        right = st.fixed_dictionaries(named, optional={name: fields[name] for name in fields if name not in named})
        return (right | right | any_).map(lambda values: cls(**values))

    def _field(self, field: Any, depth: int) -> st.SearchStrategy[Any]:
        one = self._one(field, depth)
        return st.lists(one, max_size=4) if field.is_repeated else one

    def _one(self, field: Any, depth: int) -> st.SearchStrategy[Any]:
        kind = _KINDS[field.type]
        if kind == "message":
            return st.deferred(lambda: self.messages(field.message_type, depth + 1))
        if kind in self._plain:
            return self._plain[kind]
        low, high = _RANGES[kind]
        extreme = [number for number in _INTEGERS if low <= number <= high]
        return st.integers(0, 3) | st.sampled_from(extreme) | st.integers(low, high)


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """A message with bytes changed, left out or added, or no message at all."""
    flipped = st.builds(
        lambda at, byte: data[: at % (len(data) + 1)] + bytes([byte]) + data[at % (len(data) + 1) + 1 :],
        st.integers(0, 10_000),
        st.integers(0, 255),
    )
    truncated = st.integers(0, max(0, len(data) - 1)).map(lambda end: data[:end])
    return flipped | truncated | st.binary(max_size=200) | st.binary(max_size=20).map(lambda more: data + more)
