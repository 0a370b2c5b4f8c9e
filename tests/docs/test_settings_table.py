"""The table of settings in the documentation is the code's: names, flags, defaults and what is said of each."""

from __future__ import annotations

from pathlib import Path

import torch

from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.config.setting import settings_in

PAGE = Path(__file__).parents[2] / "docs" / "OPERATIONS.md"
HEAD = "| setting | flag | default | meaning |\n|---|---|---|---|\n"


def shown(value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, torch.dtype):
        return f"`{str(value).removeprefix('torch.')}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:_}`" if isinstance(value, int) else f"`{value}`"


def table() -> str:
    rows = []
    for setting in settings_in(ServerConfig):
        words = setting.meaning.replace("|", "\\|")
        rows.append(f"| `{setting.name}` | `{setting.flag}` | {shown(setting.default)} | {words} |\n")
    return HEAD + "".join(rows)


def test_the_table_is_the_codes() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "put this there:\n" + table()
