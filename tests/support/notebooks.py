"""Notebooks, executed by nbclient in a real Jupyter kernel of this Python."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

LONGEST_CELL_S = 120
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Written = Callable[[int, str], "str | None"]
"""Called with the number of a cell and all that it has written to standard error so far. If it answers "interrupt", the
kernel is interrupted, as its button does."""


def require_jupyter() -> None:
    """Skip the test where there is no Jupyter, but fail it in CI."""
    if all(map(importlib.util.find_spec, ("nbclient", "ipykernel"))):
        return
    reason = "no Jupyter here: nbclient and ipykernel of the extra [dev] are it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def execute(notebook: Any, environment: Mapping[str, str] | None = None, written: Written | None = None) -> Any:
    """The same notebook with what its cells showed; cells that fail stop nothing."""
    require_jupyter()
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class Watched(NotebookClient):
        """Tells what is written while a cell is executed."""

        texts: dict[int, str] = {}  # noqa: RUF012 - traitlets takes it for no trait

        def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
            if written is not None and msg["msg_type"] == "stream" and msg["content"]["name"] == "stderr":
                self.texts[cell_index] = self.texts.get(cell_index, "") + msg["content"]["text"]
                if written(cell_index, self.texts[cell_index]) == "interrupt":
                    self.interrupting = asyncio.ensure_future(self.km.interrupt_kernel())
            return super().process_message(msg, cell, cell_index)

    specs = KernelSpecManager(kernel_dirs=[])  # none that a user has installed
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs, transport="ipc")
    client = Watched(notebook, km=manager, timeout=LONGEST_CELL_S, allow_errors=True)
    paths = os.pathsep.join(path for path in sys.path if path)
    return client.execute(cleanup_kc=True, env={**os.environ, "PYTHONPATH": paths, **(environment or {})})


def notebook_of(cells: Sequence[str]) -> Any:
    """Of these cells of code."""
    require_jupyter()
    from nbformat.v4 import new_code_cell, new_notebook

    return new_notebook(cells=[new_code_cell(source) for source in cells])


def stream(cell: Any, name: str) -> str:
    """All that a cell wrote to standard output or standard error."""
    return "".join(output["text"] for output in cell.outputs if output.get("name") == name)


def result(cell: Any) -> dict[str, str]:
    """What the last line of a cell showed, by media type."""
    (found,) = [output["data"] for output in cell.outputs if output["output_type"] == "execute_result"]
    return dict(found)


def traceback(cell: Any) -> list[str]:
    """The lines of the error of a cell, without colours; none: it had none."""
    errors = [output["traceback"] for output in cell.outputs if output["output_type"] == "error"]
    return _COLOURS.sub("", "\n".join(errors[0])).splitlines() if errors else []
