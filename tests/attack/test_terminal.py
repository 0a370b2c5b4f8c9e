"""A lying server's strings in the user's terminal: they are shown, written out, and do nothing."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from support.servers.liar import Liar
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, cli, connect, errors
from transparent_llm.errors import BusyError
from transparent_llm.quoting import shown
from transparent_llm.wire import status

EVIL = "\x1b]0;owned\x07\x1b[2J\r\x08\x7f\x9b31m\u202eecaf\u2066\u200b\u2028\x00 \n\x1b[1A"
"""The title of the window, an empty screen, a line that runs backwards, one that overwrites the line before."""


def is_harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n")) and "\r" not in text


def evil_everywhere(message: Any) -> None:
    """Into every string of a message, map keys included, but those that the client checks for what they are."""
    for field, value in message.ListFields():
        is_checked = field.name in ("digest", "model_digest", "run_id", "api_version")
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].type == field.TYPE_STRING:
                value[EVIL] = EVIL
        elif field.type == field.TYPE_MESSAGE:
            for one in value if field.is_repeated else [value]:
                evil_everywhere(one)
        elif field.type == field.TYPE_STRING and not is_checked:
            if field.is_repeated:
                value[:] = [EVIL + text for text in value]
            else:
                setattr(message, field.name, EVIL + value)


def lying(*rpcs: str) -> Liar:
    def change(response: Any) -> Any:
        evil_everywhere(response)
        return response

    return Liar(dict.fromkeys(rpcs, change))


def called(*arguments: str) -> tuple[Any, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(arguments)
    return code, out.getvalue(), err.getvalue()


class Refusing(grpc.ServerInterceptor):
    """Ends every call with a status of its own making."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: list[tuple[str, Any]]) -> None:
        self._answer = (code, details, metadata)

    def intercept_service(self, _: Any, __: grpc.HandlerCallDetails) -> Any:
        code, text, metadata = self._answer

        def refuse(request: Any, context: grpc.ServicerContext) -> Any:
            context.set_trailing_metadata(tuple(metadata))
            context.abort(code, text)

        return grpc.unary_unary_rpc_method_handler(refuse)


def rich(code: grpc.StatusCode) -> list[tuple[str, bytes]]:
    told = status_pb2.Status(code=code.value[0], message=EVIL)
    info = error_details_pb2.ErrorInfo(reason="MODEL_NOT_FOUND", domain=status.DOMAIN, metadata={"model": EVIL})
    told.details.add().Pack(info)
    return [(status.DETAILS_KEY, told.SerializeToString())]


def test_info_shows_them_written_out() -> None:
    with running(lying("ServerInfo", "ModelInfo")) as server:
        code, out, err = called("info", "--target", server.address)
    assert (code, err) == (0, "")
    assert is_harmless(out)
    assert r"\x1b]0;owned\x07\x1b[2J\r\x08\x7f\x9b31m\u202eecaf\u2066\u200b\u2028\x00 \n\x1b[1A" in out


def test_what_a_model_that_failed_says_of_itself_too() -> None:
    def failed(response: Any) -> Any:
        response.models[0].state = 4
        response.models[0].detail = EVIL
        response.models[0].digest = ""
        return response

    with running(Liar({"ServerInfo": failed})) as server:
        _, out, _ = called("info", "--target", server.address)
    assert is_harmless(out)
    assert "failed, " in out


def test_tokens_keep_their_look() -> None:
    with running(lying("TokensToStrings")) as server:
        code, out, err = called("run", "--target", server.address, "What say you?")
    assert (code, err) == (0, "")
    assert is_harmless(out)
    assert r"\n\x1b[1A" in out


def test_a_token_as_long_as_a_message_is_shortened() -> None:
    def long(response: Any) -> Any:
        response.strings[:] = ["x" * 10**5 for _ in response.strings]
        return response

    with running(Liar({"TokensToStrings": long})) as server:
        code, out, _ = called("run", "--target", server.address, "What say you?")
    assert code == 0
    assert len(out) < 50_000
    assert "... (100000 characters)" in out


@pytest.mark.parametrize("is_rich", [True, False])
@pytest.mark.parametrize(
    "code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN], ids=str
)
def test_errors_are_one_harmless_line_and_a_harmless_traceback(code: grpc.StatusCode, is_rich: bool) -> None:
    words = EVIL.replace("\x00", "")  # at which gRPC ends a text
    with running(Refusing(code, words, rich(code) if is_rich else [])) as server:
        ended, out, err = called("info", "--target", server.address)
        with RemoteTransparentLlm(server.address) as llm, pytest.raises(errors.TransparentLlmError) as caught:
            llm.model_info()
    assert (ended, out) == (1, "")
    assert is_harmless(err)
    assert len(err.splitlines()) == 1
    assert r"\x1b]0;owned\x07" in err
    told = "".join(traceback.format_exception(caught.value))
    assert is_harmless(told)
    assert "\x1b]0;owned" in caught.value.message  # programs get it as it came
    assert is_harmless(repr(caught.value))


def test_warnings_of_another_version_are_harmless() -> None:
    def other(response: Any) -> Any:
        response.api_version = "\u2028 99.\r\n 1"  # numbers, with what Python takes for blanks around them
        return response

    with running(Liar({"ServerInfo": other})) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        connect(server.address).close()
    (warned,) = caught
    assert is_harmless(str(warned.message))


def test_what_is_no_version_is_one_harmless_error() -> None:
    def other(response: Any) -> Any:
        response.api_version = EVIL
        return response

    with running(Liar({"ServerInfo": other})) as server:
        with pytest.raises(errors.InvalidRequestError, match="is not a version") as caught:
            connect(server.address)
    assert is_harmless(str(caught.value))


def test_values_that_are_looked_at_in_a_terminal_are_harmless() -> None:
    with running(lying("ServerInfo", "ModelInfo")) as server, RemoteTransparentLlm(server.address, model="tiny") as llm:
        for value in (llm.server_info(), llm.model_info(), llm):
            assert is_harmless(repr(value))
            assert is_harmless(str(value))


def test_the_log_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    def lost(response: Any) -> Any:
        response.run_id = EVIL
        return response

    with caplog.at_level(logging.DEBUG, "transparent_llm"), running(Liar({"Run": lost})) as server:
        with RemoteTransparentLlm(server.address) as llm:
            llm.run(["What say you?"])
            with pytest.raises(errors.TransparentLlmError):
                llm.residual_out(1)
    mine = [record.getMessage() for record in caplog.records if record.name == "transparent_llm"]
    assert all(is_harmless(line) for line in mine)


def test_a_terminal_without_these_letters_gets_them_written_out(tmp_path: Path) -> None:
    def named(response: Any) -> Any:
        response.models[0].architecture = "Ä\u4e2d\U0001f600"
        return response

    with running(Liar({"ServerInfo": named})) as server:
        command = [sys.executable, "-m", "transparent_llm", "info", "--target", server.address]
        environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
        finished = subprocess.run(command, capture_output=True, timeout=120, env=environment)
    assert finished.returncode == 0, finished.stderr
    assert rb"\xc4\u4e2d\U0001f600" in finished.stdout


def test_lone_surrogates_and_long_text() -> None:
    assert shown("a\ud800b") == r"a\ud800b"
    assert shown("x" * 50, longest=10) == "xxxxxxxxxx... (50 characters)"
    assert shown("ä中😀é'\\") == "ä中😀é'\\"
    assert str(BusyError("two\nlines\x1b")) == "two\nlines\\x1b"
