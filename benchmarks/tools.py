"""A sentence is run and all that a contribution graph reads of it is read: by a server, and by other tools in process.

GPT-2 small's shape, new token ids each time, tensors as in `sweep`. Beside ours over the wire: ours in this process;
a cache of every value with dense products at each call, as the tools have it that this class comes from; and nnsight,
where it is installed (`pip install '.[bench]'`). All values are compared once.

    .venv/bin/python benchmarks/tools.py [--quick]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from peers import device, shapes
from peers.batches import FreshBatches
from peers.hooked_cache import HookedCache
from peers.outcome import Figures, Goal, is_quick, progress, ratio_figures, report
from peers.serving import server_process
from peers.timing import in_turn, median_ms, ratio
from sweep import layer_tensors
from transformers import GPT2Config

from transparent_llm import TransparentLlm, connect
from transparent_llm_server import TransformerLensTransparentLlm

GOAL = Goal("higher", 1.0)
TOLERANCE = 1e-4
Run = Callable[[list[list[int]]], object]
Look = Callable[[int], Iterator[torch.Tensor]]
Tools = dict[str, tuple[Run, Look]]


def of_ours(llm: TransparentLlm) -> tuple[Run, Look]:
    n_heads = llm.model_info().n_heads
    return llm.run_tokens, lambda layer: layer_tensors(llm, layer, n_heads)


@contextmanager
def tools(config: GPT2Config) -> Iterator[Tools]:
    """All, of the same model."""
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        connect(address) as remote,
    ):
        progress("loading the model in this process ...")
        cached = HookedCache(folder, device.chosen())
        found: Tools = {
            "ours": of_ours(remote),
            "in_process": of_ours(TransformerLensTransparentLlm(str(folder), device=str(device.chosen()))),
            "hooked_cache": (cached.run, cached.layer_tensors),
        }
        yield found | nnsight(folder)


def nnsight(folder: Path) -> Tools:
    """It alone, or nothing."""
    if find_spec("nnsight") is None:
        progress("SKIPPED: nnsight is not installed; pip install '.[bench]'")
        return {}
    from peers.traced import Traced

    traced = Traced(folder, device.chosen())
    return {"nnsight": (traced.run, traced.layer_tensors)}


def require_same(found: Tools, token_ids: list[list[int]], n_layers: int) -> None:
    """All values of each tool beside those of the server."""
    for run, _ in found.values():
        run(token_ids)
    for layer in range(n_layers):
        wanted = list(found["ours"][1](layer))
        for _, look in found.values():
            for ours, theirs in zip(wanted, look(layer), strict=True):
                torch.testing.assert_close(theirs.cpu(), ours.cpu(), rtol=TOLERANCE, atol=TOLERANCE)


def row(found: Tools, config: GPT2Config, n_tokens: int, pairs: int) -> Figures:
    """Times at one length."""
    progress(f"{n_tokens} tokens ...")
    batches = FreshBatches(1, n_tokens, config.vocab_size)
    require_same(found, batches.next(), config.n_layer)

    def inspect(run: Run, look: Look) -> float:
        run(batches.next())
        return sum(tensor[-1, -1].sum().item() for layer in range(config.n_layer) for tensor in look(layer))

    timings = in_turn({name: lambda tool=tool: inspect(*tool) for name, tool in found.items()}, pairs)  # type: ignore[misc]
    others = [name for name in found if name not in ("ours", "hooked_cache")]
    return {
        "tokens": n_tokens,
        **GOAL.figures(ratio(timings, "hooked_cache", "ours")),
        **{f"{name}_ms": median_ms(timings, name) for name in timings},
        **{
            k: v for name in others for k, v in ratio_figures(ratio(timings, name, "ours"), f"{name}_over_ours").items()
        },
        "pairs": pairs,
    }


def main() -> None:
    quick = is_quick(__doc__)
    config, lengths, pairs = (GPT2Config(n_layer=3), (16,), 7) if quick else (shapes.gpt2_small(), (16, 64, 128), 11)
    with tools(config) as found:
        rows = [row(found, config, n_tokens, pairs) for n_tokens in lengths]
    report("tools", rows[0], quick="3 of the 12 layers, 16 tokens alone, 7 pairs" if quick else None, rows=rows)


if __name__ == "__main__":
    main()
