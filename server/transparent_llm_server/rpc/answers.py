"""From requests to streams: values are found, costed, and then computed and sent, each when its turn has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from typing import TypeVar

import torch

from transparent_llm.wire import fetch as wire_fetch
from transparent_llm.wire.form import Delivery, Form
from transparent_llm.wire.methods import METHODS
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.events import Call, current
from transparent_llm_server.models.reading import Reader
from transparent_llm_server.models.values.value import Piece, Stored, Value
from transparent_llm_server.rpc.admission import Admission
from transparent_llm_server.rpc.caller import Caller
from transparent_llm_server.rpc.work import LONG
from transparent_llm_server.scheduling.engine import Engine
from transparent_llm_server.scheduling.floor import Floor
from transparent_llm_server.scheduling.quotas import Quotas
from transparent_llm_server.scheduling.reads import Kind
from transparent_llm_server.streaming.chunks import (
    ChunkSizes,
    Outgoing,
    outgoing,
    outgoing_parts,
    resume_offset,
    stream,
)
from transparent_llm_server.streaming.shared_memory import OfferedRing

_Result = TypeVar("_Result")
_READS_AT_ONCE = 32
"""Of a Fetch or Plan: what is found in about a millisecond."""


class Answers:
    """The work of calls that read: on the call's own thread what is little, on the model thread what is much."""

    def __init__(self, config: ServerConfig, engine: Engine, admission: Admission, quotas: Quotas) -> None:
        self._engine, self._admission, self._quotas, self._floor = engine, admission, quotas, Floor()
        self._sizes = ChunkSizes(config.chunk_bytes, config.max_chunk_bytes)
        self._shared_memory, self._stall_s = config.shared_memory, config.stall_s

    def parts_of_all(self, read: Reader, request: wire_fetch.ReadsRequest, caller: Caller) -> Iterator[Outgoing]:
        """Of a Fetch or Plan, a few reads at a time: found when their turn comes, and forgotten when it is over."""
        at_once = _READS_AT_ONCE if read.reads_are_quick else 1
        for start in range(0, max(1, wire_fetch.count(request)), at_once):
            caller.require_there()
            with self._floor.turn(caller.flow) if read.reads_are_quick else nullcontext():
                reads = wire_fetch.reads(request, start, start + at_once)
                found = deque(part for each in reads for part in self.parts(read, *each, caller))
            while found:
                yield found.popleft()

    def parts(
        self, read: Reader, name: str, arguments: tuple[object, ...], form: Form, caller: Caller
    ) -> list[Outgoing]:
        """The tensors that a request is answered with, found and cut but not yet computed."""
        method = METHODS[name]

        def find() -> list[Outgoing]:
            found = read(name, *arguments)
            if method.is_parts or isinstance(found, tuple):
                return outgoing_parts(method, found, form)
            return outgoing(name, method.dims_of(len(found.shape)), found, form)

        return self._computed(find, caller, is_quick=read.reads_are_quick)

    def made_of(
        self,
        read: Reader,
        name: str,
        arguments: tuple[object, ...],
        make: Callable[[torch.Tensor], _Result],
        caller: Caller,
    ) -> _Result:
        """What is made of one value where it is computed; the value itself goes nowhere."""
        found = self._computed(lambda: read(name, *arguments), caller, is_quick=read.reads_are_quick)
        assert isinstance(found, Value), f"{name} is several"
        return self._computed(lambda: make(found.tensor()), caller, is_quick=False, kind=_kind_of(found))

    def made(self, make: Callable[[], _Result], work: int, instead: str, caller: Caller) -> _Result:
        """What is made where values are computed, by so many multiply-adds; `instead` says what to ask for if they are
        too many.

        Raises:
            TooLargeError: TOO_LARGE: it is more than the server does for one answer.
        """
        self._admission.require_work(work, instead)
        return self._computed(make, caller, is_quick=False, kind=Kind.LONG if work > LONG else Kind.PATIENT)

    def require_read(self, parts: Iterable[Outgoing], delivery: Delivery) -> None:
        """Refuse an answer that is too much before any of it is made. Raises: as `Admission.require_read`."""
        self._admission.require_read(parts, self._sizes.choose(delivery.max_chunk_bytes))

    def stream(
        self, parts: Callable[[], Iterable[Outgoing]], tag: str, delivery: Delivery, caller: Caller
    ) -> Iterator[bytes]:
        """What `parts` finds, costed before any of it is computed, and then found again one by one."""
        offset, chunk_bytes = resume_offset(delivery, tag), self._sizes.choose(delivery.max_chunk_bytes)
        nbytes = max(0, self._admission.require_read(parts(), chunk_bytes) - offset)
        with self._quotas.counted(caller.owner, "bytes", nbytes) as took, ExitStack() as stack:
            ring = None
            if delivery.offer is not None and self._shared_memory and caller.is_local:
                ring = stack.enter_context(closing(OfferedRing(delivery.offer, caller.is_there, self._stall_s)))
            take, sent = partial(self._take, caller), partial(_count, took, current.get())
            yield from stream(parts(), tag, offset, chunk_bytes, take, ring, sent)

    def _take(self, caller: Caller, value: Value, piece: Piece) -> torch.Tensor:
        caller.require_there()
        if isinstance(value, Stored):  # nothing is computed
            return piece.compute()
        for step in () if value.is_quick else piece.steps():
            self._computed(step, caller, is_quick=False, kind=_kind_of(value))
        return self._computed(piece.compute, caller, is_quick=value.is_quick, kind=_kind_of(value))

    def _computed(
        self, work: Callable[[], _Result], caller: Caller, *, is_quick: bool, kind: Kind = Kind.PATIENT
    ) -> _Result:
        """Little work is done on the call's own thread, and waits for nobody; the rest is the model thread's.

        There one piece at a time for each call, and owners in turn, so that nobody waits for more than a few; what may
        interrupt waits for no more than a layer of a run, and the rest for all of it. What looks whether to go on ends
        there when the client has left.
        """
        if is_quick:
            return self._engine.run_inline(work)
        return caller.result_of(self._engine.submit_read(partial(caller.while_there, work), caller.flow, kind))


def _kind_of(value: Value) -> Kind:
    if value.may_be_interrupted:
        return Kind.LONG
    return Kind.INTERRUPTING if value.may_interrupt else Kind.PATIENT


def _count(took: Callable[[int], None], call: Call | None, nbytes: int) -> None:
    """Bytes that are on their way to the client now."""
    took(nbytes)
    if call is not None:
        call.value_bytes += nbytes
