"""All that a contribution graph reads of a run, over the wire and from the same model in this process.

GPT-2 small's shape, 128 tokens: residuals, feed-forward outputs, decompositions of attention and every head's pattern,
layer by layer, each looked at once. Each round has a new run, so that nothing is left of the round before.

    .venv/bin/python benchmarks/sweep.py [--quick]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from peers import device, shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.serving import server_process
from peers.timing import in_turn, median_ms, ratio
from transformers import GPT2Config

from transparent_llm import RemoteTransparentLlm, TransparentLlm, connect
from transparent_llm_server import TransformerLensTransparentLlm

GOAL = Goal("lower", 1.15)
N_TOKENS = 128
GPU_TOLERANCE = 1e-3


def contribution_graph(llm: TransparentLlm) -> float:
    """Read everything; a part of each tensor is looked at."""
    info, seen = llm.model_info(), 0.0
    for layer in range(info.n_layers):
        for tensor in layer_tensors(llm, layer, info.n_heads):
            seen += tensor[-1, -1].sum().item()
    return seen


def require_same(remote: float, local: float) -> None:
    """Bit for bit; from a GPU but for rounding, as the client multiplies factors on its CPU."""
    assert math.isclose(remote, local, rel_tol=GPU_TOLERANCE if device.is_gpu() else 0.0), (remote, local)


def layer_tensors(llm: TransparentLlm, layer: int, n_heads: int) -> Iterator[torch.Tensor]:
    yield llm.residual_in(layer)
    yield llm.residual_after_attn(layer)
    yield llm.residual_out(layer)
    yield llm.ffn_out(layer)
    yield llm.decomposed_attn(0, layer)
    for head in range(n_heads):
        yield llm.attention_matrix(0, layer, head)


@contextmanager
def both(config: GPT2Config) -> Iterator[tuple[RemoteTransparentLlm, TransparentLlm]]:
    """The same model behind a server and in this process, with as many threads."""
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        connect(address) as remote,
    ):
        progress("loading the model in this process ...")
        yield remote, TransformerLensTransparentLlm(str(folder), device=str(device.chosen()))


def measure(config: GPT2Config, pairs: int) -> Figures:
    with both(config) as (remote, local):
        progress(f"{pairs + 1} rounds ...")
        batches = FreshBatches(1, N_TOKENS, remote.model_info().d_vocab)

        def run() -> None:
            token_ids = batches.next()
            remote.run_tokens(token_ids)
            local.run_tokens(token_ids)

        actions: dict[str, Callable[[], object]] = {
            "remote": lambda: contribution_graph(remote),
            "in_process": lambda: contribution_graph(local),
        }
        run()
        require_same(contribution_graph(remote), contribution_graph(local))
        timings = in_turn(actions, pairs, before=run)
    return {
        **GOAL.figures(ratio(timings, "remote", "in_process")),
        "remote_ms": median_ms(timings, "remote"),
        "in_process_ms": median_ms(timings, "in_process"),
        "tokens": N_TOKENS,
        "layers": config.n_layer,
        "pairs": pairs,
    }


def main() -> None:
    quick = is_quick(__doc__)
    figures = measure(shapes.part_of_gpt2_small(4), pairs=7) if quick else measure(shapes.gpt2_small(), pairs=11)
    report("sweep", figures, quick="3 of the 12 layers" if quick else None)


if __name__ == "__main__":
    main()
