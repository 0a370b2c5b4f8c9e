"""What a user sees in a notebook: bars that go, errors that end in the line of the user, tables, the end of a call."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from support.notebooks import execute, notebook_of, require_jupyter, result, stream, traceback
from support.servers.server_processes import process, ready_address

Cells = dict[str, Any]

STALL = """import os, signal, time
from pathlib import Path

def states():
    for status in Path("/proc/SERVER/task").glob("*/stat"):
        try:
            yield status.read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # a thread that ended
            pass

def stall():
    os.kill(SERVER, signal.SIGSTOP)
    while set(states()) != {"T"}:
        time.sleep(0.001)
"""
"""After `stall()` the server process says nothing more until it is told to go on. A signal is still on its way when
`kill` returns, and a notebook, which is not the server's parent, cannot wait for it: it asks each thread's state."""

SOURCES = {
    "stall": STALL,
    "connected": "from transparent_llm import connect\n"
    "llm = connect('ADDRESS', cache_bytes=0, read_ahead_bytes=0, reconnect_s=0.7)\nllm.run(['To be or not'])",
    "small": "for _ in range(20):\n    llm.residual_out(1)",
    "waits": "stall()\nllm.ffn_out(2).shape",
    "text for a layer": "llm.residual_out('3')",
    "no such layer": "def user():\n    return llm.residual_out(99)\nuser()",
    "no such layer of an analysis": "llm.top_tokens(layer=99)",
    "no such layer of a function": "from transparent_llm.analysis.heads import head_scores\nhead_scores(llm, 0, 99)",
    "describe": "llm.describe()",
    "server_info": "llm.server_info()",
    "describe_run": "llm.describe_run()",
    "top_tokens": "llm.top_tokens(k=3)",
    "interrupted": "began = time.monotonic()\nstall()\nllm.logits()",
    "after": "took = time.monotonic() - began\nos.kill(SERVER, signal.SIGCONT)\nprint(took < 30, *llm.logits().shape)",
    "lost": "os.kill(SERVER, signal.SIGKILL)\nllm.ffn_out(1)",
}


@pytest.fixture(scope="module")
def cells() -> Cells:
    """The cells of one notebook, executed against one server process."""
    require_jupyter()
    with process("--listen", "127.0.0.1:0") as server:
        address, names = ready_address(server), list(SOURCES)

        def written(index: int, text: str) -> str | None:
            if "waiting for the answer" in text:
                if names[index] == "waits":
                    server.send_signal(signal.SIGCONT)
                if names[index] == "interrupted" and text.count("waiting for the answer") == 1:
                    return "interrupt"
            return None

        sources = [text.replace("ADDRESS", address).replace("SERVER", str(server.pid)) for text in SOURCES.values()]
        return dict(zip(names, execute(notebook_of(sources), written=written).cells, strict=True))


def left_of(text: str) -> str:
    """What is to be seen in a line after all of this was written to it."""
    line = ""
    for part in text.split("\r"):
        line = part + line[len(part) :]
    return line.strip()


def test_connecting_warns_of_nothing(cells: Cells) -> None:
    assert cells["connected"].outputs == []


def test_small_reads_draw_nothing(cells: Cells) -> None:
    assert cells["small"].outputs == []


def test_a_long_wait_is_told_in_its_cell_and_leaves_nothing(cells: Cells) -> None:
    assert result(cells["waits"]) == {"text/plain": "torch.Size([1, 5, 128])"}
    drawn = stream(cells["waits"], "stderr")
    assert drawn.startswith("\rFfnOut: waiting for the answer [")
    assert "\n" not in drawn
    assert left_of(drawn) == ""


@pytest.mark.parametrize(
    ("name", "line", "error"),
    [
        (
            "text for a layer",
            "----> 1 llm.residual_out('3')",
            "InvalidRequestError: layer must be an integer, got str '3'",
        ),
        (
            "no such layer",
            "----> 2     return llm.residual_out(99)",
            "IndexOutOfRangeError: layer 99 is out of range: ",
        ),
        (
            "no such layer of an analysis",
            "----> 1 llm.top_tokens(layer=99)",
            "IndexOutOfRangeError: layer 99 is out of ",
        ),
        ("no such layer of a function", "----> 2 head_scores(llm, 0, 99)", "IndexOutOfRangeError: layer 99 is out of "),
        ("lost", "----> 2 llm.ffn_out(1)", "UnavailableError: "),
    ],
)
def test_an_error_ends_in_the_line_of_the_user(cells: Cells, name: str, line: str, error: str) -> None:
    lines = traceback(cells[name])
    assert lines[-1].startswith(error)
    assert lines[-2:-1] == [""]
    assert lines[-3] == line
    assert len(lines) <= 15
    assert not [
        each for each in lines[:-1] if each.startswith("File") or "hidden" in each or "transparent_llm/" in each
    ]


def test_a_lost_server_is_told_while_it_is_waited_for(cells: Cells) -> None:
    drawn = stream(cells["lost"], "stderr")
    assert "was lost (UNAVAILABLE); waiting up to 0.7 s for it [" in drawn
    assert left_of(drawn) == ""


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("describe", ("model demo", "architecture", "GPT2LMHeadModel", "957,184")),
        ("server_info", ("model", "architecture", "demo", "GPT2LMHeadModel")),
        ("describe_run", ("run of 1 sentences", "row", "token", "To", " not")),
        ("top_tokens", ("token", "logit", "prob")),
    ],
)
def test_what_is_shown_is_a_table_as_html_and_as_text(cells: Cells, name: str, texts: tuple[str, ...]) -> None:
    shown = result(cells[name])
    assert set(shown) == {"text/plain", "text/html"}
    assert shown["text/html"].startswith("<table><caption>")
    for text in texts:
        assert text in shown["text/html"]
        assert text in shown["text/plain"]
    assert "(" not in shown["text/plain"].splitlines()[0]  # of a class


def test_interrupting_the_kernel_ends_the_call_and_nothing_else(cells: Cells) -> None:
    assert traceback(cells["interrupted"])[-3:] == ["----> 3 llm.logits()", "", "KeyboardInterrupt: "]
    assert left_of(stream(cells["interrupted"], "stderr")) == ""
    assert stream(cells["after"], "stdout") == "True 1 5 1024\n"
