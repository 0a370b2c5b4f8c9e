"""What needs the clients of other languages is asked for by name."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--languages", action="store_true", help="run LANGUAGES.md with the clients that `make clients` built"
    )
