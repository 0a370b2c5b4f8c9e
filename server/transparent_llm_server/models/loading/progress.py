"""Progress of a load: somebody is told what it does, and keeps others still where it cannot bear company.

Two models, each behind its own lock, can run at the same time: TransformerLens' shared state is that of one bridge.
What cannot bear company is the moment in which transformers builds the modules of a model, as it then changes torch's
default dtype, and more, for the whole process: another model's pass would make some of its tensors in the wrong type.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_Contexts = list[AbstractContextManager[object]]


@dataclass(frozen=True)
class LoadProgress:
    """What a server wants of a load."""

    on_step: Callable[[str], None]
    """Is told what begins now; may raise, which ends the load."""

    alone: Callable[[], AbstractContextManager[object]]
    """Within it, no model computes."""


_progress: ContextVar[LoadProgress | None] = ContextVar("progress", default=None)


@contextmanager
def reporting_to(progress: LoadProgress) -> Iterator[None]:
    """Within this block, what this thread loads is reported in this way."""
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


def step(words: str) -> None:
    """Tell whoever watches this load what begins now, in words such as "reading weights"."""
    progress = _progress.get()
    if progress is not None:
        progress.on_step(words)


def alone() -> AbstractContextManager[object]:
    """Within it, no model of the server that is told of the load computes."""
    progress = _progress.get()
    return nullcontext() if progress is None else progress.alone()


def build_alone() -> None:
    """From here on, transformers builds modules only within `alone`."""
    from transformers import PreTrainedModel

    contexts = PreTrainedModel.get_init_context.__func__
    if contexts.__name__ == _contexts_alone.__name__:
        return

    def _contexts_of(cls: type[PreTrainedModel], /, *args: object, **kwargs: object) -> _Contexts:
        return _contexts_alone(contexts(cls, *args, **kwargs))

    _contexts_of.__name__ = _contexts_alone.__name__
    PreTrainedModel.get_init_context = classmethod(_contexts_of)


def _contexts_alone(contexts: _Contexts) -> _Contexts:
    return [alone(), *contexts]


@contextmanager
def quiet() -> Iterator[None]:
    """Within this block, transformers' own table of what is missing is not logged: it says that such a model may be
    used; here that is refused in one sentence."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
