"""Flags, files and documentation of one server are made of the same fields, each with one default and one meaning."""

from __future__ import annotations

import argparse
import json
from dataclasses import make_dataclass
from pathlib import Path

import pytest
import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config.flags import add_serve_flags
from transparent_llm_server.config.server import DEFAULT_SHARED_POSITIONS, ServerConfig, settings_of
from transparent_llm_server.config.setting import Setting, settings_in

SETTINGS = settings_in(ServerConfig)


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    add_serve_flags(parser)
    return parser


def other_value(setting: Setting) -> bool | int | float | str | list[str]:
    """A value that is not the default, as a file has it."""
    default = setting.default
    if isinstance(default, bool):
        return not default
    if setting.name == "saes":
        return ["a=./a@residual_out.0", "b=./b@residual_after_attn.0:ffn_out.0"]
    if isinstance(default, tuple):
        return ["a", "b=c"]
    if setting.kind is float or isinstance(default, float):
        return 7.5
    if setting.kind in (int, int | None):
        return 7
    return {"dtype": "float16", "access_log": "json"}.get(setting.name, "other")


def words_for(setting: Setting) -> list[str]:
    """The same on a command line."""
    value = other_value(setting)
    if isinstance(value, bool):
        return [setting.flag]
    values = value if isinstance(value, list) else [value]
    return [word for one in values for word in (setting.flag, str(one))]


def test_there_is_a_flag_for_each_field_and_no_other(parser: argparse.ArgumentParser) -> None:
    flags = {action.dest: action.option_strings for action in parser._actions}
    assert flags.pop("config") == ["--config"]
    assert flags == {setting.name: [setting.flag] for setting in SETTINGS}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_file_sets_each_field_and_a_flag_sets_the_same(
    setting: Setting, parser: argparse.ArgumentParser, tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f"{setting.name} = {json.dumps(other_value(setting))}\n", encoding="utf-8")
    by_file = ServerConfig.of(settings_of(file))
    assert by_file != ServerConfig()
    given = vars(parser.parse_args(words_for(setting)))
    assert ServerConfig.of({name: value for name, value in given.items() if value is not None}) == by_file


def test_no_flag_has_a_default_of_its_own(parser: argparse.ArgumentParser) -> None:
    assert set(vars(parser.parse_args([])).values()) == {None}


@pytest.mark.parametrize(
    ("flag", "end"),
    [
        ("--listen", f"(default {ServerConfig().listen})"),
        ("--dtype", f"(default {str(ServerConfig().dtype).removeprefix('torch.')})"),
        ("--run-store-bytes", f"(default {ServerConfig().run_store_bytes // 2**30} GiB)"),
        ("--max-text-bytes", f"(default {ServerConfig().max_text_bytes // 2**20} MiB)"),
        ("--max-tokens-per-run", f"(default {ServerConfig().max_tokens_per_run})"),
        ("--drain-s", f"(default {ServerConfig().drain_s:g})"),
        ("--tls-cert", "Unset: no TLS."),
        ("--no-shared-memory", "that offer it."),
    ],
)
def test_help_ends_with_the_default_of_the_field(flag: str, end: str, parser: argparse.ArgumentParser) -> None:
    (action,) = (action for action in parser._actions if flag in action.option_strings)
    assert action.help is not None
    assert action.help.endswith(end)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_meaning_says_something_and_no_default(setting: Setting) -> None:
    assert len(setting.meaning.split()) > 3
    assert "default" not in setting.meaning
    if isinstance(setting.default, int | float) and setting.default > 1:
        assert f"{setting.default:g}" not in setting.meaning


def test_the_one_number_that_words_must_tell_is_the_codes() -> None:
    (setting,) = (setting for setting in SETTINGS if setting.name == "shared_positions")
    assert f"Unset: {DEFAULT_SHARED_POSITIONS} on a GPU, 0 on the CPU." in setting.meaning


def test_what_is_on_unless_it_is_forbidden_is_told_so(parser: argparse.ArgumentParser) -> None:
    assert "Do not send large tensors through shared memory" in " ".join(parser.format_help().split())


def test_without_the_source_of_the_settings_there_are_flags_all_the_same() -> None:
    (setting,) = settings_in(make_dataclass("Compiled", [("drain_s", float, 1.0)]))
    assert (setting.flag, setting.meaning) == ("--drain-s", "")


@pytest.mark.parametrize("value", ["float16", "bfloat16", "float32"])
def test_types_are_given_by_name(value: str, parser: argparse.ArgumentParser) -> None:
    given = parser.parse_args(["--dtype", value])
    assert ServerConfig.of({"dtype": given.dtype}).dtype is getattr(torch, value)


@pytest.mark.parametrize("value", [{}, [], 1, "int8"])
def test_what_is_no_name_of_a_type_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="it must be one of float32, bfloat16, float16"):
        ServerConfig.of({"dtype": value})
