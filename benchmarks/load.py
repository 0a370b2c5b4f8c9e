"""Requests a second of 16 clients of 4 owners, beside plain Hugging Face in process: one by one, and batched by hand.

GPT-2 small's shape. A request is a run of a new prompt of 8 to 64 tokens, and a read of the residual vector of its last
position at all layers and of the largest logits there. Of the server two: one where each run has a pass of its own, as
by default on a CPU, and one where waiting runs share passes (`--shared-positions`), whose values differ by rounding.

    .venv/bin/python benchmarks/load.py [--quick]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peers import device, shapes
from peers.outcome import Figures, Goal, is_quick, progress, ratio_figures, report
from peers.processes import Worker, workers
from peers.prompts import Prompts
from peers.requests import K, one_request
from peers.serving import server_process
from peers.spread import Median
from peers.timing import Timings, measured_in_turn, ratio
from transformers import GPT2Config, GPT2LMHeadModel

from transparent_llm import connect
from transparent_llm_server.access.bearer_tokens import new_bearer_token

GOAL = Goal("higher", 1.0)
OWNERS, CLIENTS = 4, 16
FAIRNESS_GOAL = Goal("lower", 2.0)
SHARED_POSITIONS = 1024
TOLERANCE = 1e-4


class Plain:
    """The Hugging Face model as one would use it."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = shapes.byte_tokenizer(50_257)
        self._model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager", trust_remote_code=False)
        self._model.to(device.chosen()).eval()

    @torch.no_grad()
    def requests(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """As one batch, padded on the right: residual vectors [row layer d_model] and the largest logits [row k]. The
        scores of other positions are not computed."""
        batch = self._tokenizer(list(prompts), return_tensors="pt", padding=True).to(device.chosen())
        rows, last = torch.arange(len(prompts), device=device.chosen()), batch["attention_mask"].sum(dim=1) - 1
        streams, hooks = list[torch.Tensor](), []
        for block in self._model.transformer.h:
            hooks.append(block.register_forward_hook(lambda *given: streams.append(_stream(given[-1])[rows, last])))
        try:
            final = self._model.transformer(**batch, use_cache=False).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(streams, dim=1), self._model.lm_head(final[rows, last]).topk(K).values


def _stream(output: Any) -> torch.Tensor:
    """Of a layer, whose output is a tuple in some versions."""
    stream: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return stream


@contextmanager
def crowd(folder: Path, n_layers: int, *flags: str) -> Iterator[tuple[str, str, Worker]]:
    """A server, a token of it, and clients of all owners in a process of their own."""
    with tempfile.TemporaryDirectory() as work:
        tokens, lines = zip(*(new_bearer_token(f"owner-{i}") for i in range(OWNERS)), strict=True)
        file = Path(work, "tokens.txt")
        file.write_text("\n".join(lines), encoding="utf-8")
        with server_process("--model", f"gpt2={folder}", "--tokens", str(file), *flags) as address:
            targets = [part for i in range(CLIENTS) for part in (address, tokens[i % OWNERS])]
            with workers(1, "requests", n_layers, *targets) as (worker,):
                yield address, tokens[0], worker


def require_same(address: str, token: str, plain: Plain, n_layers: int) -> None:
    """The values of a request, beside those of the plain model."""
    prompt = "My lord, the king"
    with connect(address, token=token) as llm:
        ours = one_request(llm, prompt, n_layers)
    for mine, theirs in zip(ours, plain.requests([prompt]), strict=True):
        torch.testing.assert_close(mine, theirs[0].cpu(), rtol=TOLERANCE, atol=TOLERANCE)


def seconds_by_crowd(worker: Worker, prompts: Prompts, each: int, waits: list[list[list[float]]]) -> float:
    """Of all its requests."""
    answer: dict[str, Any] = worker.ask([prompts.next(each) for _ in range(CLIENTS)])
    waits.append(answer["waits"])
    return float(answer["seconds"])


def seconds_alone(plain: Plain, prompts: Prompts, count: int, at_once: int) -> float:
    """Of as many requests, so many in a batch."""
    given = prompts.next(count)
    started = time.perf_counter()
    for start in range(0, count, at_once):
        plain.requests(given[start : start + at_once])
    device.finish()
    return time.perf_counter() - started


def unfairness(waits: Sequence[list[list[float]]]) -> Median:
    """Over rounds: the median wait of the owner who waited longest over that of the one who waited shortest."""
    found = []
    for by_client in waits:
        medians = [statistics.median(w for client in by_client[i::OWNERS] for w in client) for i in range(OWNERS)]
        found.append(max(medians) / min(medians))
    return Median.of(found)


def row(name: str, timings: Timings, waits: list[list[list[float]]], count: int) -> Figures:
    """One kind of server, beside the loop and the batches by hand."""
    fair = unfairness(waits)
    return {
        "what": name,
        **GOAL.figures(ratio(timings, "one by one", name), and_also=FAIRNESS_GOAL.met(fair)),
        **ratio_figures(ratio(timings, "by hand", name), "over_batches_by_hand"),
        **ratio_figures(fair, "longest_over_shortest_median_wait"),
        "runs_per_s": {side.replace(" ", "_"): round(count / statistics.median(timings[side]), 2) for side in timings},
        "median_wait_s": round(statistics.median(w for by_client in waits for c in by_client for w in c), 3),
        "pairs": len(timings[name]),
    }


def measure(config: GPT2Config, pairs: int, each: int) -> list[Figures]:
    count, prompts = CLIENTS * each, Prompts()
    waits: dict[str, list[list[list[float]]]] = {"a pass each": [], "shared passes": []}
    with ExitStack() as stack:
        folder = stack.enter_context(shapes.saved(config))
        plain = Plain(folder)
        sides: dict[str, Callable[[], float]] = {}
        for name, flags in zip(waits, ((), ("--shared-positions", str(SHARED_POSITIONS))), strict=True):
            address, token, worker = stack.enter_context(crowd(folder, config.n_layer, *flags))
            require_same(address, token, plain, config.n_layer)
            sides[name] = partial(seconds_by_crowd, worker, prompts, each, waits[name])
        sides["one by one"] = partial(seconds_alone, plain, prompts, count, 1)
        sides["by hand"] = partial(seconds_alone, plain, prompts, count, CLIENTS)
        progress(f"{pairs} rounds of {count} requests ...")
        timings = measured_in_turn(sides, pairs)
    return [row(name, timings, waits[name][-pairs:], count) for name in waits]


def main() -> None:
    quick = is_quick(__doc__)
    rows = measure(GPT2Config(n_layer=3), 5, 2) if quick else measure(shapes.gpt2_small(), 11, 3)
    left_out = "3 of the 12 layers, 5 rounds of 2 requests of each client" if quick else None
    report(
        "load", rows[0], quick=left_out, rows=rows, clients=CLIENTS, owners=OWNERS, shared_positions=SHARED_POSITIONS
    )


if __name__ == "__main__":
    main()
