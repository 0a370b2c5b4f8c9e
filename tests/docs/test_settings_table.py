"""The table of settings in the documentation is the code's: names, flags, defaults and what is said of each."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import re
from pathlib import Path

import torch

from transparent_llm_server.config.flags import add_serve_flags
from transparent_llm_server.config.server import ServerConfig

PAGE = Path(__file__).parents[2] / "docs" / "OPERATIONS.md"
HEAD = "| setting | flag | default | meaning |\n|---|---|---|---|\n"


def flags() -> dict[str, str]:
    """Setting -> its flag."""
    parser = argparse.ArgumentParser(add_help=False)
    add_serve_flags(parser)
    return {action.dest: action.option_strings[0] for action in parser._actions}


def meanings() -> dict[str, str]:
    """Setting -> the words under it."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(ServerConfig)).body if isinstance(node, ast.ClassDef))
    found: dict[str, str] = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = " ".join(ast.literal_eval(below.value).split())
    return found


def shown(value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, torch.dtype):
        return f"`{str(value).removeprefix('torch.')}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:_}`" if isinstance(value, int) else f"`{value}`"


def table() -> str:
    flag, meaning, rows = flags(), meanings(), []
    for field in dataclasses.fields(ServerConfig):
        words = meaning[field.name].replace("|", "\\|")
        named = f"`{flag[field.name]}`" if field.name in flag else ""
        rows.append(f"| `{field.name}` | {named} | {shown(field.default)} | {words} |\n")
    return HEAD + "".join(rows)


def test_the_table_is_the_codes() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "put this there:\n" + table()


def test_every_flag_sets_something() -> None:
    names = {field.name for field in dataclasses.fields(ServerConfig)}
    assert set(flags()) - names == {"config"}
    assert len(re.findall(r"--[a-z-]+", table())) >= len(flags()) - 1
