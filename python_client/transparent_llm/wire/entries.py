"""How much a serialized message holds, told without parsing it: of a million small entries that takes memory, and time
in which the process does nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10


def count_entries(data: bytes, within: Collection[int], most: int) -> int:
    """The fields of a message, and of the messages in its fields `within`; no more than `most` are looked at.

    What is no message counts as far as it can be read.
    """
    count = 0
    try:
        for _ in _entries(data, within):
            count += 1
            if count >= most:
                break
    except IndexError:
        pass
    return count


def _entries(data: bytes, within: Collection[int]) -> Iterator[object]:
    for number, start, stop in _fields(data, 0, len(data)):
        yield number
        if number in within:
            yield from _fields(data, start, stop)


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, where its bytes begin, where they end) of each field; a number has none.

    Raises:
        IndexError: these bytes are no fields, from here on.
    """
    while position < end:
        tag, start = _varint(data, position)
        kind = tag & 7
        if kind == _BYTES:
            size, start = _varint(data, start)
            position = start + size
        else:
            start = position = _varint(data, start)[1] if kind == _VARINT else start + _FIXED.get(kind, end)
        if position > end:
            raise IndexError
        yield tag >> 3, start, position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number that begins at a position, and the position behind it."""
    number = 0
    for i in range(_LONGEST_VARINT):
        byte = data[position + i]
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number, position + i + 1
    raise IndexError
