"""The main job in one go: a server process on the embedded model, and a look inside it from here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO
from urllib.request import ProxyHandler, build_opener

import torch

from transparent_llm.client.config import NO_CREDENTIALS
from transparent_llm.client.connect import connect
from transparent_llm.client.remote import RemoteTransparentLlm
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import UnavailableError

SENTENCES = [
    "My lord, the king of France is dead; my lord, the king of",
    "What say you, gentle friend? What say you,",
]
_LONGEST_END_S = 60.0
SHADES = " ░▒▓█"


def demo() -> None:
    """Start, look, compare with the same model in this process, stop."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of the model that is loaded here to be compared with
    print("starting a server process on the embedded demo model ...", flush=True)
    with paged_server_process() as (address, page), connect(address, **NO_CREDENTIALS) as llm:
        print(f"ready: {address}\n\n{llm.model_info()}\n")
        llm.run(SENTENCES)
        _print_tokens(llm)
        _print_logit_lens(llm)
        _print_strongest_head(llm)
        _print_comparison(llm)
        print(f"\nin a browser: {page} ({_size(page)} bytes), which goes with this server;")
        print("`make page`, or `transparent-llm serve --page 127.0.0.1:8080`, keeps it open")
    print("server stopped")


@contextmanager
def server_process(*arguments: str) -> Iterator[str]:
    """The address of a server in a process of its own, which ends with the block."""
    with _started(arguments) as (address, _):
        yield address


@contextmanager
def paged_server_process(*arguments: str) -> Iterator[tuple[str, str]]:
    """The same with a port for browsers: the server's address, and its page's."""
    with _started([*arguments, "--page", "127.0.0.1:0"]) as (address, output):
        yield address, output.readline().removeprefix("page: ").strip()


@contextmanager
def _started(arguments: Sequence[str]) -> Iterator[tuple[str, IO[str]]]:
    """The address, and what else the process says."""
    local = ("--listen", "127.0.0.1:0", "--device", "cpu")  # where the model in this process computes too
    command = [sys.executable, "-m", "transparent_llm", "serve", *local, *arguments]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("ready: "):
                _end(process)
                log.seek(0)
                raise UnavailableError(f"the server did not start: {log.read().strip()[-2000:]}")
            yield line.removeprefix("ready: ").strip(), process.stdout
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask it to; one that goes on for longer than a server may is killed."""
    process.terminate()
    try:
        process.wait(_LONGEST_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _size(page: str) -> int:
    """Of what a browser gets first, asked for directly, whatever proxy the environment names."""
    answer: IO[bytes]
    with build_opener(ProxyHandler({})).open(page, timeout=10) as answer:
        return len(answer.read())


def _strings(llm: TransparentLlm, row: int) -> list[str]:
    length = int(llm.mask()[row].sum())
    return llm.tokens_to_strings(llm.tokens()[row, :length])


def _shown(token: str) -> str:
    return repr(token)[1:-1]


def _print_tokens(llm: TransparentLlm) -> None:
    for row in range(llm.batch_size()):
        print(f"tokens {row}: " + " | ".join(_shown(token) for token in _strings(llm, row)))


def _print_logit_lens(llm: TransparentLlm) -> None:
    """What each layer would say next at the last position, and how sure it is."""
    row, last = 0, len(_strings(llm, 0)) - 1
    print(f"\nlogit lens after {_shown(_strings(llm, row)[last])!r} (top 4 next tokens by layer)")
    for layer in range(llm.model_info().n_layers):
        probabilities = torch.softmax(llm.unembed(llm.residual_out(layer)[row, last], normalize=True).float(), dim=0)
        best = probabilities.topk(4)
        shown = zip(llm.tokens_to_strings(best.indices), best.values.tolist(), strict=True)
        print(f"  layer {layer}: " + "  ".join(f"{_shown(token):>8} {p:5.1%}" for token, p in shown))


def _print_strongest_head(llm: TransparentLlm) -> None:
    """The head that looks most at the token after an earlier occurrence of the present one."""
    info, tokens = llm.model_info(), llm.tokens()[0].tolist()
    pairs = [(q, k) for q in range(len(tokens)) for k in range(1, q) if tokens[k - 1] == tokens[q]]
    scores = {}
    for layer in range(info.n_layers):
        for head in range(info.n_heads):
            matrix = llm.attention_matrix(0, layer, head)
            scores[layer, head] = sum(matrix[q, k].item() for q, k in pairs) / len(pairs)
    layer, head = max(scores, key=lambda key: scores[key])
    print(f"\nstrongest induction head: layer {layer}, head {head}", end=" ")
    print(f"({scores[layer, head]:.0%} of its attention after a repeated token goes to what followed it before)")
    _draw(llm.attention_matrix(0, layer, head), _strings(llm, 0))


def _draw(matrix: torch.Tensor, tokens: list[str]) -> None:
    for query, token in enumerate(tokens):
        row = matrix[query, : query + 1].tolist()
        print(f"{_shown(token):>14} " + "".join(SHADES[min(int(weight * 5), 4)] * 2 for weight in row))


def _print_comparison(llm: RemoteTransparentLlm) -> None:
    """Every kind of value, remote and in this process."""
    from transparent_llm_server import TransformerLensTransparentLlm
    from transparent_llm_server.demo import DEMO_MODEL

    local = TransformerLensTransparentLlm(str(DEMO_MODEL))
    local.run(SENTENCES)
    reads = {
        "logits": (),
        "residual_in": (2,),
        "residual_after_attn": (2,),
        "residual_out": (2,),
        "ffn_out": (2,),
        "decomposed_ffn_out": (0, 2, 5),
        "neuron_activations": (0, 2, 5),
        "neuron_output": (2, 7),
        "attention_matrix": (0, 2, 1),
        "attention_output": (0, 2, 5, 1),
        "decomposed_attn": (0, 2),
    }
    equal = {name: torch.equal(getattr(llm, name)(*at), getattr(local, name)(*at)) for name, at in reads.items()}
    print(f"\nremote equals local bit for bit: {sum(equal.values())} of {len(equal)} kinds of values")
    different = [name for name, same in equal.items() if not same]
    if different:
        raise SystemExit(f"remote differs from local in {', '.join(different)}")
