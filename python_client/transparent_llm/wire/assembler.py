"""Puts the tensors of one stream together: each is allocated once, from its header, and filled chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile

import torch
from google.protobuf.message import DecodeError

from transparent_llm.quoting import quoted
from transparent_llm.runtime import memory
from transparent_llm.runtime.memory import require_within
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire.expected import Answer, Place
from transparent_llm.wire.frames import bytes_of, parse
from transparent_llm.wire.headers import checked_header
from transparent_llm.wire.protocol_error import ProtocolError

TakeShared = Callable[[int, memoryview], None]
"""Copies what lies in a slot of shared memory to where it belongs."""

Came = Callable[[int, list[tuple[str, torch.Tensor]]], None]
"""Is given the number of a value that is whole, and its tensors with their names; again, of a stream begun anew."""


@dataclass
class _Tensor:
    """A tensor that is arriving, with the memory that its bytes go to."""

    name: str
    total_bytes: int
    tensor: torch.Tensor
    memory: memoryview
    place: Place | None
    """In the answer, where it is known what that must be."""

    received: int = 0


class Assembler:
    """Takes the messages of a stream, of several calls if it broke.

    `received` and `etag` are what a request for the rest needs after a break; `resume` says that one was sent.
    `max_bytes` is the most that one tensor may take, `most` how many there may be: headers without end fill the memory
    too. `answer` says what each must be, and `came` is told of each value of it whose end is seen before the next.
    """

    def __init__(
        self,
        max_bytes: int | None = None,
        most: int | None = None,
        answer: Answer | None = None,
        came: Came | None = None,
    ) -> None:
        self._max_bytes, self._most, self._answer, self._came = max_bytes, most, answer, came
        self.received = 0
        self.total_bytes = 0
        """Of all tensors whose header has come."""

        self._etag: str | None = None
        self._tensors: list[_Tensor] = []
        self._goes_on = False

    @property
    def etag(self) -> str:
        """Of the stream so far; empty before its first header."""
        return self._etag or ""

    @property
    def has_begun(self) -> bool:
        """Whether a header has come."""
        return self._etag is not None

    @property
    def complete(self) -> bool:
        """Whether every byte that was announced is there."""
        return self._etag is not None and self.received == self.total_bytes

    def add(self, message: bytes, take_shared: TakeShared | None = None) -> None:
        """Take the next TensorChunk; `take_shared` gets data that lie in shared memory.

        Raises:
            ProtocolError: no header yet, a gap, more data than announced, or a header that contradicts itself.
            TooLargeError: a tensor of more than `max_bytes` is announced.
        """
        try:
            frame = parse(message)
            head = None if frame.header is None else tensor_pb2.TensorHeader.FromString(frame.header)
        except DecodeError as error:
            raise ProtocolError(f"a message that is not a TensorChunk: {error}") from None
        if head is not None:
            self._begin(head, frame.offset)
        if head is None and (self._goes_on or not self._tensors):
            raise ProtocolError("the stream began without a header")
        self._goes_on = False
        size = frame.shared[1] if frame.shared else len(frame.data)
        current, end = self._tensors[-1], frame.offset + size
        if frame.offset != current.received or end > current.total_bytes:
            raise ProtocolError(f"chunk {frame.offset}..{end} after byte {current.received} of {current.total_bytes}")
        target = current.memory[frame.offset : end]
        if frame.shared is None:
            target[:] = frame.data
        elif take_shared is None or frame.data:
            raise ProtocolError("data in shared memory that was not offered")
        else:
            take_shared(frame.shared[0], target)
        current.received = end
        self.received += size
        if end == current.total_bytes and self._ends(current.place):
            self._tell_of(current.place)

    def resume(self) -> None:
        """The stream broke and is asked for from `received` on. What has no bytes yet will be sent again."""
        while self._tensors and not self._tensors[-1].received:
            self.total_bytes -= self._tensors.pop().total_bytes
        self._goes_on = True

    def tensors(self) -> list[tuple[str, torch.Tensor]]:
        """The finished tensors with their names, on the CPU.

        Raises:
            ProtocolError: there is none, the last one is not finished, or some are missing.
        """
        if not self.complete:
            raise ProtocolError(f"the stream ended at byte {self.received} of {self.total_bytes}")
        if self._answer is not None:
            self._answer.require_whole(self._tensors[-1].place if self._tensors else None)
        return [(held.name, held.tensor) for held in self._tensors]

    def _begin(self, head: tensor_pb2.TensorHeader, offset: int) -> None:
        if head.etag == self._etag:
            if self._goes_on and offset and self._tensors:
                self._require_same(self._tensors[-1], head)
                return
            if not self.complete:
                raise ProtocolError(f"{quoted(head.name)} begins at byte {self.received} of {self.total_bytes}")
        elif self.has_begun and not self._goes_on:
            raise ProtocolError(f"{quoted(head.name)} has a different etag than its stream")
        begun = self._allocated(head)
        if head.etag != self._etag:  # the first header, or the server could not promise the same bits
            self._tensors, self._etag, self.received, self.total_bytes = [], head.etag, 0, 0
        if len(self._tensors) == self._most:
            raise ProtocolError(f"{quoted(head.name)} begins after {self._most} tensors, the most there can be")
        if self._tensors and not self._ends(last := self._tensors[-1].place):
            self._tell_of(last, begun.place)
        self._tensors.append(begun)
        self.total_bytes += head.total_bytes

    def _ends(self, place: Place | None) -> bool:
        """Whether the value there is whole when the tensor is."""
        return self._answer is not None and place is not None and self._answer.ends(place)

    def _tell_of(self, place: Place | None, following: Place | None = None) -> None:
        """The value there is whole, unless what follows belongs to it."""
        if self._came is None or place is None or (following and following.value == place.value):
            return
        tensors = [(held.name, held.tensor) for held in self._of_value(place)]
        self._came(place.value, tensors[::-1])

    def _before(self, place: Place | None) -> int:
        """Bytes of the tensors before this one that are one value together with it, as parts and not as factors."""
        if place is None or not place.part or self._answer is None or not self._answer.is_parts(place):
            return 0
        return sum(held.total_bytes for held in self._of_value(place))

    def _of_value(self, place: Place) -> Iterator[_Tensor]:
        """Tensors of one value, the last one first."""
        return takewhile(lambda held: held.place and held.place.value == place.value, reversed(self._tensors))

    @staticmethod
    def _require_same(held: _Tensor, head: tensor_pb2.TensorHeader) -> None:
        sent = checked_header(head)
        if (sent.name, sent.shape, sent.dtype) != (held.name, tuple(held.tensor.shape), held.tensor.dtype):
            raise ProtocolError("a header with the etag of the broken stream describes another tensor")

    def _allocated(self, head: tensor_pb2.TensorHeader) -> _Tensor:
        """Memory for what a header announces, which may come from anyone."""
        if self._answer is None:
            place, header = None, checked_header(head)
        else:
            goes_on = head.etag == self._etag and self._tensors
            place, header = self._answer.follow(self._tensors[-1].place if goes_on else None, head)
        require_within(head.name, self._before(place) + head.total_bytes, self._max_bytes)
        try:
            tensor = memory.empty(header.shape, header.dtype)
        except (MemoryError, OverflowError, RuntimeError, TypeError):
            raise ProtocolError(f"no memory for the {head.total_bytes} bytes that were announced") from None
        return _Tensor(head.name, head.total_bytes, tensor, bytes_of(tensor), place)
