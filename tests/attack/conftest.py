"""Attacks are made again where only the machine was slow."""

from __future__ import annotations

import pytest

from attack.victim import TooSlowError

_ATTEMPTS = 3


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """How long the slowest of some hundred reads takes is at times the doing of what else runs on the machine.

    So that promise, and no other, has to hold in one of a few attempts.
    """
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            pyfuncitem.obj(**arguments)
        except TooSlowError as error:
            print(f"\nattempt {attempt} of {_ATTEMPTS}: {error}")
            if attempt == _ATTEMPTS:
                raise
        else:
            break
    return True
