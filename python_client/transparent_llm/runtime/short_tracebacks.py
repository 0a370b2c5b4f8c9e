"""Tracebacks that end where the user's code called: what is within is of no help to whoever made the mistake."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from transparent_llm.errors import InternalError, TransparentLlmError
from transparent_llm.readable_traceback import rendered

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Class = TypeVar("_Class")


def short_tracebacks(cls: type[_Class]) -> type[_Class]:
    """All public methods that this class defines, and how it is made, raise as `short_traceback` has it."""
    for name, function in list(vars(cls).items()):
        if inspect.isfunction(function) and (not name.startswith("_") or name == "__init__"):
            setattr(cls, name, short_traceback(function))
    return cls


def short_traceback(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The function, whose errors have one frame of this package: this one, which IPython and pytest do not show.

    An `InternalError` keeps its frames, as they are what a report needs. So does an interrupt, which IPython
    shows without them.
    """

    @wraps(function)
    def called(*arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        __tracebackhide__ = True  # read by IPython and pytest out of the frame
        try:
            return function(*arguments, **keywords)
        except InternalError:
            raise
        except KeyboardInterrupt as interrupt:
            interrupt._render_traceback_ = partial(rendered, interrupt, whole=False)  # type: ignore[attr-defined]
            raise
        except TransparentLlmError as error:
            raise error.with_traceback(None) from error.__cause__

    return called
