"""A logit lens of 12 layers x 30 positions, the 10 best tokens each, beside the same by calls of unembed.

GPT-2 small's shape. The grid is one read of the server, and the same function in this process. By calls, each vector of
the residual stream is unembedded by a call of its own, as the class has it, and sorted here; also, beside it, 30
vectors in one call. Bytes are those of all messages of the grid, beside those of the scores.

    cd benchmarks && ../.venv/bin/python -m analysis.lens_grid [--quick]
"""

from __future__ import annotations

import os
from typing import Any

import torch
from peers import device, shapes, wire_bytes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.serving import server_process
from peers.timing import in_turn, median_ms, ratio
from transformers import GPT2Config

from transparent_llm import RemoteTransparentLlm, TransparentLlm, connect
from transparent_llm.analysis.logit_lens import logit_lens
from transparent_llm_server import TransformerLensTransparentLlm

GOAL = Goal("higher", 5.0)
BYTES_GOAL = Goal("higher", 1000.0)
N_TOKENS, K = 30, 10
TOLERANCE = 1e-3


def grid(llm: TransparentLlm) -> torch.Tensor:
    """Logits of the best tokens [layer pos rank]."""
    return logit_lens(llm, layers=range(llm.model_info().n_layers), k=K, with_kl=False).logits


def by_vectors(llm: TransparentLlm) -> torch.Tensor:
    """The same, a call for each vector."""
    layers = []
    for layer in range(llm.model_info().n_layers):
        stream = llm.residual_out(layer)[0]
        layers.append(torch.stack([llm.unembed(vector, True).topk(K).values for vector in stream]))
    return torch.stack(layers)


def by_layers(llm: TransparentLlm) -> torch.Tensor:
    """The same, a call for each layer."""
    n_layers = llm.model_info().n_layers
    return torch.stack([llm.unembed(llm.residual_out(layer)[0], True).topk(K).values for layer in range(n_layers)])


def reads(n_layers: int) -> list[tuple[Any, ...]]:
    """What the grid asks of the server."""
    positions = tuple(range(N_TOKENS))
    given = (None, "out", "out", "own", positions, K, 0, (), False)
    return [("layer_lens", 0, layer, *given) for layer in range(n_layers)]


def figures(remote: RemoteTransparentLlm, address: str, local: TransparentLlm, pairs: int) -> Figures:
    info = remote.model_info()
    batches = FreshBatches(1, N_TOKENS, info.d_vocab)

    def run() -> None:
        token_ids = batches.next()
        remote.run_tokens(token_ids)
        local.run_tokens(token_ids)

    run()
    for way in (by_vectors, by_layers):
        torch.testing.assert_close(grid(remote), way(remote), rtol=0, atol=TOLERANCE)
    actions = {
        "grid": lambda: grid(remote),
        "grid_in_process": lambda: grid(local),
        "unembed_vectors": lambda: by_vectors(remote),
        "unembed_layers": lambda: by_layers(remote),
    }
    timings = in_turn(actions, pairs, before=run)
    sent = wire_bytes.of_fetch(address, remote.run_id(), reads(info.n_layers))
    dense = 4 * info.n_layers * N_TOKENS * info.d_vocab
    fewer = BYTES_GOAL.figures(dense / sent)
    return {
        **GOAL.figures(ratio(timings, "unembed_vectors", "grid"), and_also=fewer["met"]),
        "bytes": {**fewer, "grid": sent, "vectors": dense},
        "ratio_unembed_layers": round(ratio(timings, "unembed_layers", "grid"), 4),
        "ratio_in_process": round(ratio(timings, "grid_in_process", "grid"), 4),
        **{f"{name}_ms": median_ms(timings, name) for name in timings},
        "layers": info.n_layers,
        "pairs": pairs,
    }


def measure(config: GPT2Config, pairs: int) -> Figures:
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # for the server
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        connect(address, cache_bytes=0) as remote,
    ):
        progress("loading the model in this process ...")
        return figures(remote, address, TransformerLensTransparentLlm(str(folder), device=str(device.chosen())), pairs)


def main() -> None:
    quick = is_quick(__doc__)
    part = GPT2Config(n_layer=2)
    found = measure(part, 3) if quick else measure(shapes.gpt2_small(), 5)
    report("lens_grid", found, quick="2 of the 12 layers, 3 pairs" if quick else None)


if __name__ == "__main__":
    main()
