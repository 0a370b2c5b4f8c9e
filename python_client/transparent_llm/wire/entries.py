"""How many entries a list in a serialized message has, counted without parsing it, and no further than need be."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types."""


def count_entries(data: bytes | memoryview, path: Sequence[Collection[int]], most: int) -> int:
    """Fields of bytes or messages at the end of a path of field numbers: at most one more than `most`.

    To parse a million empty ones takes a tenth of a second in which no other thread runs. Of what is no message those
    before the damage count: whoever parses it then says what is wrong.
    """
    count, position, end, view = 0, 0, len(data), memoryview(data)
    try:
        while position < end and count <= most:
            tag, position = _varint(view, position)
            size, position = _content(view, position, tag & 7)
            if tag & 7 == _BYTES and tag >> 3 in path[0]:
                inside = view[position : position + size]
                count += 1 if len(path) == 1 else count_entries(inside, path[1:], most - count)
            position += size
    except IndexError:
        pass
    return count


def _content(view: memoryview, position: int, wire_type: int) -> tuple[int, int]:
    """Bytes of a field, and where they begin."""
    if wire_type == _BYTES:
        return _varint(view, position)
    if wire_type == _VARINT:
        return 0, _varint(view, position)[1]
    if wire_type in (_FIXED64, _FIXED32):
        return (8 if wire_type == _FIXED64 else 4), position
    raise IndexError  # groups, which no schema here has


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """(number, position behind it)"""
    number = shift = 0
    while True:
        byte = view[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
        if shift > 63:
            raise IndexError
