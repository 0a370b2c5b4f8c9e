"""The command line against a server process of the embedded model.

What it does as a process is tested in processes, one for each way to end; what it does with arguments, by `called`.
"""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load

from transparent_llm import RemoteTransparentLlm, cli
from transparent_llm.contract import ModelInfo
from transparent_llm.demo import server_process
from transparent_llm.description import ModelDescription, ModelState
from transparent_llm.quoting import shown
from transparent_llm.wire.methods import METHODS

SENTENCE = "My lord, the king of France"
ARGUMENTS: dict[str, list[str]] = {
    "tokens": [],
    "logits": [],
    "unembed": ["--layer", "2", "--pos", "3"],
    "residual_in": ["--layer", "2"],
    "residual_after_attn": ["--layer", "2"],
    "residual_out": ["--layer", "3"],
    "ffn_out": ["--layer", "0"],
    "decomposed_ffn_out": ["--layer", "1", "--pos", "2"],
    "neuron_activations": ["--layer", "1", "--pos", "2"],
    "neuron_output": ["--layer", "1", "--neuron", "7"],
    "attention_matrix": ["--layer", "1", "--head", "2"],
    "attention_output": ["--layer", "1", "--pos", "2", "--head", "3"],
    "decomposed_attn": ["--layer", "1", "--batch", "0"],
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with server_process() as address:
        yield address


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "transparent_llm", *arguments]
    return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False)


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which spares the start of Python and torch."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code: Any = cli.main(arguments)
        except SystemExit as ended:  # argparse, of what it does not understand
            code = ended.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def test_info_prints_what_the_server_serves_and_how_exact_it_is(address: str) -> None:
    finished = command("info", "--target", address)
    assert finished.returncode == 0, finished.stderr
    assert "model demo: GPT2LMHeadModel, F32 on cpu" in finished.stdout
    assert "957,184 parameters, 4 layers, 4 heads, d_model 128, d_ffn 512, d_vocab 1024, context 256" in finished.stdout
    assert "logits_vs_huggingface" in finished.stdout


def test_run_prints_tokens_and_likely_next_ones(address: str) -> None:
    finished = command("run", "--target", address, "--top", "3", SENTENCE, "What")
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert len(lines) == 8  # for each sentence its tokens and three guesses
    assert lines[0].startswith("<|endoftext|> | My |  lord | ,")
    with RemoteTransparentLlm(address) as llm:
        llm.run([SENTENCE])
        best = torch.softmax(llm.logits()[0, -1], dim=0).max()
    assert lines[1].split()[0] == f"{best:.1%}"


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_get_saves_every_tensor_with_the_names_of_its_axes(name: str, address: str, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    run = command if name == "logits" else called
    finished = run("get", name, *ARGUMENTS[name], SENTENCE, "-o", str(output), "--target", address)
    assert finished.returncode == 0, finished.stderr
    with RemoteTransparentLlm(address) as llm, safe_open(output, "pt") as file:
        llm.run([SENTENCE])
        metadata = file.metadata()
        assert metadata["dims"] == ",".join(METHODS[name].dims or ())
        assert metadata["model"] == "demo"
        assert metadata["model_digest"] == llm.describe().digest
        assert torch.equal(file.get_tensor(name), wanted(llm, name))


def wanted(llm: RemoteTransparentLlm, name: str) -> torch.Tensor:
    if name == "unembed":
        return llm.unembed(llm.residual_out(2)[0, 3], normalize=True)
    values = dict(zip(ARGUMENTS[name][::2], map(int, ARGUMENTS[name][1::2]), strict=True))
    indices = [values.get("--" + argument.removesuffix("_i"), 0) for argument in METHODS[name].arguments]
    result: torch.Tensor = getattr(llm, name)(*indices)
    return result


def test_a_file_that_cannot_be_written_is_one_line(address: str, tmp_path: Path) -> None:
    finished = command(
        "get", "tokens", SENTENCE, "-o", str(tmp_path / "no" / "such" / "folder.st"), "--target", address
    )
    assert finished.returncode == 1
    assert len(finished.stderr.splitlines()) == 1
    assert finished.stderr.startswith("transparent-llm: cannot write ")


def get_tokens(address: str, output: Path) -> subprocess.CompletedProcess[str]:
    return called("get", "tokens", SENTENCE, "-o", str(output), "--target", address)


def names_in(data: bytes) -> set[str]:
    """Of the tensors in a file of safetensors."""
    return set(load(data))


def test_a_link_stays_a_link_and_a_file_keeps_its_mode(address: str, tmp_path: Path) -> None:
    there, link = tmp_path / "there.safetensors", tmp_path / "link"
    there.write_bytes(b"x" * 10**6)
    there.chmod(0o640)
    link.symlink_to(there)
    before = there.stat()
    assert get_tokens(address, link).returncode == 0
    after = there.stat()
    assert link.is_symlink()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert names_in(there.read_bytes()) == {"tokens"}
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "new.safetensors")
    assert get_tokens(address, dangling).returncode == 0
    assert dangling.is_symlink()
    assert names_in((tmp_path / "new.safetensors").read_bytes()) == {"tokens"}


def test_a_pipe_is_written_into(address: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(pipe.read_bytes)
        finished = get_tokens(address, pipe)
        assert finished.returncode == 0, finished.stderr
        assert names_in(taken.result(timeout=60)) == {"tokens"}
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert finished.stdout == ""  # which may be the pipe
    assert finished.stderr.startswith(f"{pipe}: tokens I64 ")


def test_a_device_stays_a_device(address: str, tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    assert get_tokens(address, link).returncode == 0
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_what_is_no_file_is_not_written_over(address: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        for path, kind in ((tmp_path, "a folder"), (tmp_path / "s", "a socket")):
            finished = get_tokens(address, path)
            assert finished.returncode == 1
            said = f"cannot write {path}: it is {kind}, which is not written over; name a file"
            assert finished.stderr == f"transparent-llm: {said}\n"


def test_help_and_mistakes_on_a_terminal_without_these_letters_are_written_out() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONPATH": os.pathsep.join(sys.path)}
    for arguments, code in ((["get", "Ä", "-o", "x"], 2), (["get", "--help"], 0), (["health", "--target", "Ä:x"], 1)):
        whole = [sys.executable, "-m", "transparent_llm", *arguments]
        finished = subprocess.run(whole, capture_output=True, timeout=120, env=environment, check=False)
        assert finished.returncode == code, finished.stderr
        assert b"Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--top", "-1", SENTENCE], "--top is -1: it must be 0 or more"),
        (
            ["get", "unembed", "--layer", "0", "--pos", "99", SENTENCE],
            "pos 99 is out of range: valid indices are 0 to ",
        ),
        (
            ["get", "unembed", "--layer", "0", "--pos", "-99", SENTENCE],
            "pos -99 is out of range: valid indices are 0 to ",
        ),
        (["get", "unembed", "--layer", "0", "--pos", "9" * 30, SENTENCE], "is out of range: valid indices are 0 to "),
        (["get", "unembed", "--layer", "0", "--pos", "0", "--batch", "1", SENTENCE], "batch_i 1 is out of range"),
        (["info", "--timeout-s", "nan"], "timeout_s is nan: it must be a number of seconds"),
        (["info", "--timeout-s", "inf"], "timeout_s is inf: it must be a number of seconds"),
        (["info", "--tls-ca", "a\0b"], r"cannot read the CA certificates: a\x00b: embedded null byte"),
        (["info", "--model", "\x1b[2J"], r"there is no model '\x1b[2J'"),
        (["info", "--proxy", "socks5://x:1"], "proxy is not an HTTP proxy: write http://HOST:PORT"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_arguments_that_cannot_be_are_one_line(arguments: list[str], said: str, address: str, tmp_path: Path) -> None:
    output = ["-o", str(tmp_path / "x")] if arguments[0] == "get" else []
    finished = called(*arguments, *output, "--target", address)
    assert finished.returncode == 1
    assert len(finished.stderr.splitlines()) == 1
    assert said in finished.stderr


def test_more_next_tokens_than_there_are_is_all_of_them(address: str) -> None:
    finished = called("run", "--top", "5000", "What", "--target", address)
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 1 + 1024


def test_an_option_that_does_not_exist_is_no_sentence(tmp_path: Path) -> None:
    finished = called("get", "logits", SENTENCE, "--no-such-option", "-o", str(tmp_path / "x"))
    assert finished.returncode == 2
    assert "unrecognized arguments: --no-such-option" in finished.stderr


def test_every_tensor_of_the_table_is_tested_here() -> None:
    assert set(ARGUMENTS) == {name for name, row in METHODS.items() if row.dims is not None and row.of_class}


def test_get_says_which_index_is_missing(address: str, tmp_path: Path) -> None:
    finished = called("get", "attention_matrix", "--target", address, SENTENCE, "-o", str(tmp_path / "x"))
    assert finished.returncode == 1
    assert finished.stderr == "transparent-llm: attention_matrix needs --layer, --head\n"


def test_get_says_that_a_sentence_is_missing(address: str, tmp_path: Path) -> None:
    finished = called("get", "logits", "--target", address, "-o", str(tmp_path / "x"))
    assert finished.returncode == 1
    assert finished.stderr.startswith("transparent-llm: logits needs sentences to run")


def test_the_servers_refusal_is_one_line(address: str, tmp_path: Path) -> None:
    arguments = ("residual_out", "--target", address, "--layer", "9", SENTENCE, "-o", str(tmp_path / "x"))
    finished = command("get", *arguments)
    assert finished.returncode == 1
    assert finished.stderr == "transparent-llm: layer 9 is out of range: valid indices are 0 to 3\n"


def test_health_is_an_exit_code(address: str) -> None:
    assert command("health", "--target", address).returncode == 0
    nobody = command("health", "--target", "127.0.0.1:1")
    assert nobody.returncode == 1
    assert nobody.stderr.startswith("transparent-llm: no server answers at 127.0.0.1:1")


def test_demo_does_the_main_job() -> None:
    finished = command("demo")
    assert (finished.returncode, finished.stderr) == (0, "")
    for piece in (
        "ready: 127.0.0.1:",
        "tokens 0:",
        "logit lens",
        "strongest induction head",
        "11 of 11 kinds",
        "server stopped",
    ):
        assert piece in finished.stdout


def test_a_wrong_word_explains_the_usage() -> None:
    finished = called("get", "no_such_tensor", "-o", "x")
    assert finished.returncode == 2
    assert "invalid choice: 'no_such_tensor'" in finished.stderr


LOADED = ModelDescription(
    ModelInfo("big", 7_000_000, 4, 8, 64, 500),
    "0" * 64,
    architecture="LlamaForCausalLM",
    device="cuda:0, cuda:1",
    aliases=("huge",),
    revision="v2",
    devices={"cuda:1": 3, "cuda:0": 1},
)


def test_info_says_where_a_model_lies_and_how_it_was_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    cli._print_model(LOADED)
    first = capsys.readouterr().out.splitlines()[1]
    where = "cuda:0, cuda:1, 1 layers on cuda:0, 3 layers on cuda:1"
    assert first == f"model big, huge: LlamaForCausalLM, F32 on {where}, v2"
    cli._print_model(replace(LOADED, devices={}, revision="", quantization="torchao-int8", device="cpu"))
    first = capsys.readouterr().out.splitlines()[1]
    assert first == "model big, huge: LlamaForCausalLM, F32 on cpu, quantized: torchao-int8"


def test_info_says_of_a_model_that_is_not_loaded_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    never = ModelDescription(ModelInfo("big", 0, 0, 0, 0, 0), "", state=ModelState.LOADING, detail="reading weights")
    cli._print_model(never)
    assert capsys.readouterr().out == "\nmodel big: loading, reading weights\n"
    cli._print_model(replace(LOADED, state=ModelState.UNLOADED, detail="to be loaded from a local folder"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "model big, huge: unloaded, to be loaded from a local folder"
    assert lines[2].startswith("  7,000,000 parameters, 4 layers, 8 heads, d_model 64")


def test_lens_prints_the_last_positions_and_writes_a_page_of_all(address: str, tmp_path: Path) -> None:
    page = tmp_path / "lens.html"
    finished = called("lens", SENTENCE, "-o", str(page), "--target", address)
    assert finished.returncode == 0, finished.stderr
    with RemoteTransparentLlm(address) as llm:
        llm.run([SENTENCE])
        wanted = llm.logit_lens()
    lines = finished.stdout.splitlines()
    assert lines[:-1] == str(wanted).splitlines()
    assert [line.split()[:2] for line in lines[2:-1]] == [["out", str(i)] for i in (3, 2, 1, 0)] + [["in", "0"]]
    assert lines[-1] == f"{page}: 5 places, {len(wanted.positions)} positions"
    assert page.read_text("utf-8").count("data-value=") == 5 * len(wanted.positions)


def test_lens_of_one_position_after_attention_too(address: str) -> None:
    finished = called("lens", SENTENCE, "--pos", "-1", "--mid", "--normalize", "frozen", "--target", address)
    assert finished.returncode == 0, finished.stderr
    with RemoteTransparentLlm(address) as llm:
        llm.run([SENTENCE])
        assert finished.stdout == f"{llm.logit_lens(positions=[-1], mid=True, normalize='frozen')}\n"
    assert len(finished.stdout.splitlines()) == 2 + 9


def test_generate_prints_how_a_text_goes_on(address: str) -> None:
    finished = called("generate", SENTENCE, "--max-new-tokens", "4", "--target", address)
    assert finished.returncode == 0
    with RemoteTransparentLlm(address) as llm:
        wanted = "".join(step.text for step in llm.generate(SENTENCE, 4))
        drawn = "".join(step.text for step in llm.generate(SENTENCE, 4, temperature=2.0, top_k=9, seed=3, stop="q"))
    assert finished.stdout == shown(wanted, keeps="\n\t") + "\n"
    options = ["--temperature", "2", "--top-k", "9", "--seed", "3", "--stop", "q", "--max-new-tokens", "4"]
    finished = called("generate", SENTENCE, *options, "--target", address)
    assert finished.stdout == shown(drawn, keeps="\n\t") + "\n"


def test_top_prints_what_the_model_or_a_layer_says(address: str) -> None:
    finished = called("top", SENTENCE, "--top", "3", "--target", address)
    assert finished.returncode == 0, finished.stderr
    with RemoteTransparentLlm(address) as llm:
        llm.run([SENTENCE])
        best = llm.logits()[0, -1].topk(3).indices
        words = llm.tokens_to_strings(best)
        lines = finished.stdout.splitlines()[2:]
        assert [line.split()[-3] for line in lines] == [str(int(token)) for token in best]
        assert all(repr(word) in line for word, line in zip(words, lines, strict=True))
        of_layer = called("top", SENTENCE, "--layer", "1", "--pos", "2", "--bottom", "2", "--target", address)
        assert of_layer.stdout == f"{llm.top_tokens(1, 2, bottom_k=2)}\n"


def test_graph_draws_what_leads_to_a_prediction(address: str, tmp_path: Path) -> None:
    page = tmp_path / "graph.html"
    finished = called("graph", SENTENCE, "--threshold", "0.1", "--pos", "4", "-o", str(page), "--target", address)
    assert finished.returncode == 0, finished.stderr
    with RemoteTransparentLlm(address) as llm:
        llm.run([SENTENCE])
        graph = llm.contribution_graph(threshold=0.1).paths(4)
    n = len(graph.edges())
    assert n
    assert page.read_text("utf-8").count("data-weight=") == n
    assert finished.stdout == f"{page}: {n} edges, 4 layers, {len(graph.tokens)} tokens\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lens", SENTENCE, "--pos", "99"], "pos 99 is out of range"),
        (["lens", SENTENCE, "-o", "/"], "/"),
        (["top", SENTENCE, "--top", "5000"], "k must be 0 to 1024, the number of tokens in the vocabulary, got 5000"),
        (["top", SENTENCE, "--layer", "9"], "layer 9 is out of range"),
        (["graph", SENTENCE, "--threshold", "2", "-o", "x.html"], "from 0 to 1, got 2.0"),
        (["graph", SENTENCE, "--pos", "99", "-o", "x.html"], "start 99 is out of range"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(arguments: list[str], said: str, address: str) -> None:
    finished = called(*arguments, "--target", address)
    assert finished.returncode == 1
    assert len(finished.stderr.splitlines()) == 1
    assert said in finished.stderr
