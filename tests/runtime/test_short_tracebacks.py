"""Tracebacks: the user's line, and one frame of ours, which says of itself that it need not be shown."""

from __future__ import annotations

import signal
import traceback
from types import TracebackType

import pytest

from support.servers.servers import served, tiny
from transparent_llm import RemoteTransparentLlm, TransparentLlm, connect, errors
from transparent_llm.analysis.heads import head_scores
from transparent_llm.readable_traceback import up_to_user
from transparent_llm.runtime.short_tracebacks import short_traceback, short_tracebacks


def frames(error: BaseException) -> list[TracebackType]:
    """Beyond the one of this file."""
    found, here = [], error.__traceback__
    while here is not None:
        found.append(here)
        here = here.tb_next
    assert found[0].tb_frame.f_code.co_filename == __file__
    return found[1:]


def require_short(error: errors.TransparentLlmError) -> None:
    shown = [frame for frame in frames(error) if not frame.tb_frame.f_locals.get("__tracebackhide__")]
    assert shown == []
    assert len(frames(error)) == 1
    assert "During handling" not in "".join(traceback.format_exception(error))


def test_a_mistake_ends_in_the_line_that_made_it() -> None:
    local = tiny().copy()
    local.run_tokens([[1, 2]])
    with served() as remote:
        remote.run_tokens([[1, 2]])
        models: list[TransparentLlm] = [local, remote]
        for llm in models:
            for index in (99, 1.5):
                with pytest.raises(errors.TransparentLlmError) as refused:
                    llm.residual_out(index)  # type: ignore[arg-type]
                require_short(refused.value)
        with pytest.raises(errors.InvalidRequestError) as refused:
            remote.reading(pos=3)  # type: ignore[arg-type]
        require_short(refused.value)


def test_a_client_that_cannot_be_made_does_too() -> None:
    for make in (RemoteTransparentLlm, connect):
        with pytest.raises(errors.InvalidRequestError) as refused:
            make("nowhere:70000")
        require_short(refused.value)


def test_an_interrupt_is_shown_up_to_the_user_and_keeps_its_frames() -> None:
    interrupt = short_traceback(signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt) as interrupted:
        interrupt(signal.SIGINT, None)
    assert len(frames(interrupted.value)) == 1
    lines = interrupted.value._render_traceback_()  # type: ignore[attr-defined]
    assert len(lines) == 3
    assert __file__ in lines[-2]
    assert lines[-1] == "KeyboardInterrupt\n"


def test_what_is_ours_at_the_end_is_not_shown_but_of_a_bug() -> None:
    with served() as remote, pytest.raises(errors.NotRunError) as refused:
        head_scores(remote, 0, 0)
    assert __file__ in refused.value._render_traceback_()[-2]
    assert len(frames(refused.value)) > 1
    bug = errors.InternalError("a bug").with_traceback(refused.value.__traceback__)
    assert "transparent_llm" in bug._render_traceback_()[-2]
    assert errors.NotRunError("never raised")._render_traceback_() == [
        "transparent_llm.errors.NotRunError: never raised\n"
    ]


def test_a_traceback_of_ours_alone_stays_whole() -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        connect("nowhere:70000")
    ours = refused.value.__traceback__
    assert ours is not None
    assert up_to_user(ours.tb_next) is not None


def test_a_cause_stays_and_a_bug_of_the_server_keeps_its_frames() -> None:
    @short_tracebacks
    class Thing:
        def fail(self, error: Exception) -> None:
            self._fail(error)

        def _fail(self, error: Exception) -> None:
            raise error from OSError("the disk")

    for error, count in ((errors.InvalidRequestError("wrong"), 1), (errors.InternalError("a bug"), 3), (KeyError(), 3)):
        with pytest.raises(type(error)) as raised:
            Thing().fail(error)
        assert isinstance(raised.value.__cause__, OSError)
        assert len(frames(raised.value)) == count
