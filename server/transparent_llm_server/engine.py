"""One model thread and a bounded queue: all work on models happens here, one piece at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

from transparent_llm.errors import BusyError, CapacityError

_Result = TypeVar("_Result")
_Job = tuple[Callable[[], Any], "Future[Any]"]


class Engine:
    """Runs submitted work in order of arrival. Cancel a future to drop work that has not begun."""

    def __init__(self, queue_length: int, retry_after_s: float) -> None:
        self._jobs: queue.Queue[_Job | None] = queue.Queue(maxsize=queue_length)
        self._retry_after_s = retry_after_s
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Put work into the queue.

        Raises:
            BusyError: the queue is full.
        """
        future: Future[_Result] = Future()
        try:
            self._jobs.put_nowait((work, future))
        except queue.Full:
            raise BusyError(
                f"{self._jobs.maxsize} calls wait for the model already; try again in {self._retry_after_s:g} s",
                metadata={"queue_length": str(self._jobs.maxsize)},
                retry_after_s=self._retry_after_s,
            ) from None
        return future

    def close(self) -> None:
        """Finish what is queued, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, future = job
            if future.set_running_or_notify_cancel():
                _finish(work, future)
            del job, work, future  # a waiting thread must not keep the last result alive


def _finish(work: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(work())
    except (torch.OutOfMemoryError, MemoryError) as error:
        future.set_exception(_out_of_memory(error))
    except BaseException as error:
        future.set_exception(error)


def _out_of_memory(error: BaseException) -> CapacityError:
    return CapacityError(
        "the device has no memory left for this call; run fewer or shorter sentences, or release runs",
        metadata={"device_message": str(error)[:200]},
    )
