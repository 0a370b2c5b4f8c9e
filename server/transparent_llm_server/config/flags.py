"""The flags of `transparent-llm serve`, made of the server's settings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypedDict, get_args

from transparent_llm_server.config.parsing import choices_of
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.config.setting import Setting, settings_in

_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


class _Form(TypedDict, total=False):
    """How argparse takes a value."""

    action: str
    choices: tuple[str, ...]
    type: type[int] | type[float] | type[Path]
    metavar: str | None


def add_serve_flags(parser: argparse.ArgumentParser) -> None:
    """All of them; those that are not given stay None, so that a configuration file or the default counts."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="Read settings from this TOML file; those given here come first.",
    )
    for setting in settings_in(ServerConfig):
        parser.add_argument(setting.flag, dest=setting.name, default=None, help=_help(setting), **_form(setting))


def _form(setting: Setting) -> _Form:
    kinds = get_args(setting.kind) or (setting.kind,)
    if isinstance(setting.default, bool):
        return {"action": "store_false" if setting.default else "store_true"}
    if isinstance(setting.default, tuple):
        return {"action": "append", "metavar": setting.metavar}
    if choices := choices_of(setting.kind):
        return {"choices": choices}
    if int in kinds:
        return {"type": int, "metavar": setting.metavar or ("BYTES" if "bytes" in setting.name else "N")}
    if float in kinds:
        return {"type": float, "metavar": "SECONDS"}
    return {"metavar": setting.metavar or ("FILE" if Path in kinds else None)}


def _help(setting: Setting) -> str:
    words = setting.meaning
    if setting.default is True:
        words = f"Do not {words[:1].lower()}{words[1:]}"
    shown = _shown(setting)
    return (f"{words} (default {shown})" if shown else words).replace("%", "%%")


def _shown(setting: Setting) -> str:
    """The default in words; empty where there is none, or where the flag is there or not."""
    default = setting.default
    if default is None or isinstance(default, bool | tuple):
        return ""
    if isinstance(default, int) and "bytes" in setting.name:
        return next((f"{default // size} {unit}" for unit, size in _UNITS if default % size == 0), f"{default}")
    return f"{default:g}" if isinstance(default, float) else str(default).removeprefix("torch.")
