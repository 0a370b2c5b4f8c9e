"""Requests of which one field is extreme and all others are right: every field of every message there is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor

LONG_BYTES = 3 * 2**20
MANY = 100_000
_BOUNDS: dict[int, tuple[int, ...]] = {
    FieldDescriptor.TYPE_INT32: (-(2**31), -1, 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), -1, 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (1, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), -1, 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), -1, 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (1, 2**63, 2**64 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 99, 2**31 - 1),
}
_Path = tuple[FieldDescriptor, ...]


def extremes(right: Any) -> Iterator[tuple[str, bytes]]:
    """Variants of a right request, each with the field that is extreme in it and how."""
    for path in _paths(right.DESCRIPTOR, (), set()):
        name, field = ".".join(step.name for step in path), path[-1]
        for kind, value in _values(field):
            message = type(right)()
            message.CopyFrom(right)
            _set(_holder(message, path[:-1]), field, value)
            if message.ByteSize() <= LONG_BYTES + 2**19:
                yield f"{name}: {kind}", message.SerializeToString()


def _paths(descriptor: Any, before: _Path, seen: set[str]) -> Iterator[_Path]:
    """Ways to every field, a field that can be reached in several ways once."""
    for field in descriptor.fields:
        if field.full_name in seen:
            continue
        seen.add(field.full_name)
        yield (*before, field)
        if field.message_type is not None and not _is_map(field):
            yield from _paths(field.message_type, (*before, field), seen)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _values(field: FieldDescriptor) -> Iterator[tuple[str, Any]]:
    """For a repeated field: lists; for a map: maps."""
    if _is_map(field):
        value = next(value for _, value in _one(field.message_type.fields_by_name["value"]))
        yield "an entry", {"x": value}
        return
    for kind, value in _one(field):
        if not field.is_repeated:
            yield kind, value
        elif isinstance(value, str | bytes) and len(value) > 1:
            yield f"one {kind}", [value]
        else:
            yield f"{MANY} of {kind}", [value] * MANY


def _one(field: FieldDescriptor) -> Iterator[tuple[str, Any]]:
    if field.message_type is not None:
        yield "an empty message", message_factory.GetMessageClass(field.message_type)()
    elif field.type == FieldDescriptor.TYPE_STRING:
        yield from (("letters", "x" * LONG_BYTES), ("unprintable signs", "\x01" * LONG_BYTES))
        yield from (("characters of three bytes", "\u4e2d" * (LONG_BYTES // 3)), ("a letter", "a"))
    elif field.type == FieldDescriptor.TYPE_BYTES:
        yield from (("zeros", bytes(LONG_BYTES)), ("a byte", b"\xff"))
    elif field.type == FieldDescriptor.TYPE_BOOL:
        yield "true", True
    elif field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        yield from (("infinity", math.inf), ("no number", math.nan), ("zero", 0.0))
    else:
        yield from ((str(bound), bound) for bound in _BOUNDS[field.type])


def _holder(message: Any, path: _Path) -> Any:
    """The message that the way leads to, which is made where it is not there."""
    for field in path:
        message = getattr(message, field.name)
        if field.is_repeated:
            message = message[0] if len(message) else message.add()
        else:
            message.SetInParent()
    return message


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        message.ClearField(field.name)
        held = getattr(message, field.name)
        held.update(value) if isinstance(value, dict) else held.extend(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, value)
