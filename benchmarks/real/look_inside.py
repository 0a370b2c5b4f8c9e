"""A published checkpoint through the service: how it is loaded, what its layers say, and the graph of a sentence.

`make demo-real` installs Gemma 3 270M and runs this with the path of its GGUF file. The last line is one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import torch
from peers.relay import counting_relay

from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.demo import server_process

CAPITAL = "The capital of France is"
DRINK = "When Mary and John went to the store, Mary gave a drink to"
PERIOD = 20
"""Random tokens that are repeated once."""

THRESHOLD = 0.04
"""Of what makes up a value, parts under this share are no edge of the graph."""


def top(llm: RemoteTransparentLlm, logits: torch.Tensor, count: int) -> list[tuple[str, float]]:
    best = logits.float().softmax(dim=-1).topk(count)
    return list(zip(llm.tokens_to_strings(best.indices), best.values.tolist(), strict=True))


def shown(words: list[tuple[str, float]]) -> str:
    return "  ".join(f"{word!r} {share:.0%}" for word, share in words)


def lens(llm: RemoteTransparentLlm) -> list[int]:
    """What each layer would say next; the layers where it is Paris."""
    llm.run([CAPITAL])
    print(f"\nlogit lens after {CAPITAL!r}")
    found = []
    for layer in range(llm.model_info().n_layers):
        words = top(llm, llm.unembed(llm.residual_out(layer)[0, -1], normalize=True), 4)
        found += [layer] if words[0][0] == " Paris" else []
        print(f"  layer {layer:2}: {shown(words)}")
    return found


def drink(llm: RemoteTransparentLlm) -> dict[str, float]:
    llm.run([DRINK])
    words = top(llm, llm.logits()[0, -1], 4)
    print(f"\nafter {DRINK!r}: {shown(words)}")
    return dict(words)


def induction(llm: RemoteTransparentLlm) -> tuple[int, int, float]:
    """The head that looks most at what followed the same token before, and how much of it does."""
    unit = torch.randint(1000, 200_000, (PERIOD,), generator=torch.Generator().manual_seed(0)).tolist()
    llm.run_tokens([[2, *unit, *unit]])
    info, queries = llm.model_info(), torch.arange(1 + PERIOD, 2 * PERIOD)
    scores = {
        (layer, head): llm.attention_matrix(0, layer, head)[queries, queries - PERIOD + 1].mean().item()
        for layer in range(info.n_layers)
        for head in range(info.n_heads)
    }
    (layer, head), score = max(scores.items(), key=lambda item: item[1])
    print(f"\ninduction on {PERIOD} random tokens, repeated: layer {layer}, head {head}, {score:.0%} of its attention")
    return layer, head, score


def shares(whole: torch.Tensor, *parts: torch.Tensor) -> list[torch.Tensor]:
    """How much of a vector each part makes up: what its sum of sizes would lose without it; together 1."""
    size = whole.abs().sum(dim=-1)
    gains = [(size - (whole - part).abs().sum(dim=-1)).clamp(min=0) for part in parts]
    total = torch.stack([gain.flatten(1).sum(dim=1) if gain.ndim > 1 else gain for gain in gains]).sum(dim=0)
    return [gain / total.clamp(min=1e-12).reshape(-1, *[1] * (gain.ndim - 1)) for gain in gains]


def graph(llm: RemoteTransparentLlm) -> tuple[int, int]:
    """From the last position back to the tokens: nodes and edges that carry more than the threshold."""
    nodes = {(llm.model_info().n_layers, llm.tokens().shape[1] - 1)}
    seen, edges = set(nodes), 0
    for layer in reversed(range(llm.model_info().n_layers)):
        before, middle, after = (
            getattr(llm, name)(layer)[0] for name in ("residual_in", "residual_after_attn", "residual_out")
        )
        heads = llm.decomposed_attn(0, layer)  # [target source head d_model]
        stays, by_ffn = shares(after, middle, llm.ffn_out(layer)[0])
        own, moved = shares(middle[:, None, None], before[:, None, None], heads)
        following = set()
        for _, position in nodes:
            edges += int(by_ffn[position] > THRESHOLD) + int(stays[position] > THRESHOLD)
            sources = (moved[position] > THRESHOLD).nonzero()[:, 0].tolist()
            edges += len(sources) + int(own[position].sum() > THRESHOLD)
            following |= {(layer, source) for source in (*sources, position)}
        nodes = following
        seen |= nodes
    return len(seen), edges


def walk(address: str) -> dict[str, float]:
    """Time and bytes of the graph of a sentence, for a client that has nothing yet, over the socket."""
    with counting_relay(address) as relay, connect(relay.address, shared_memory=False, timeout_s=120) as llm:
        llm.run([DRINK])
        n_tokens = llm.tokens().shape[1]
        found: list[tuple[int, int]] = []
        began = time.perf_counter()
        sent = relay.bytes_of(lambda: found.append(graph(llm)))
        seconds = time.perf_counter() - began
    dense = 18 * n_tokens * n_tokens * 4 * 640 * 4
    nodes, edges = found[0]
    print(f"\ngraph of {n_tokens} tokens: {nodes} nodes, {edges} edges, {seconds:.2f} s, {sent} bytes on the wire")
    return {"graph_tokens": n_tokens, "graph_s": round(seconds, 2), "graph_bytes": sent, "decomposed_attn_bytes": dense}


def main(path: str) -> None:
    began = time.perf_counter()
    with server_process("--model", f"gemma={path}") as address:
        load_s = time.perf_counter() - began
        with connect(address, timeout_s=120) as llm:
            told = llm.describe()
            print(f"{told.info}\n{told.architecture}, {told.quantization}, loaded in {load_s:.0f} s")
            for check in told.parity:
                print(f"  {check.name}: {check.max_abs_error:.2g} (allowed {check.tolerance:.2g})")
            paris, words, (layer, head, score) = lens(llm), drink(llm), induction(llm)
            walk(address)  # threads and caches of the server are warm then
            figures = walk(address)
    figures |= {
        "load_s": round(load_s, 1),
        "weight_bytes": told.weight_bytes,
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "layers_with_paris": paris,
        "john": round(words.get(" John", 0.0), 3),
        "induction_head": [layer, head, round(score, 3)],
        "parity": {check.name: [check.max_abs_error, check.tolerance] for check in told.parity},
    }
    print(json.dumps(figures))
    if paris[:1] != [12] or next(iter(words)) != " John" or score < 0.5:
        raise SystemExit("this is not what is known of Gemma 3 270M: see docs/REAL_CHECKPOINTS.md")


if __name__ == "__main__":
    main(sys.argv[1])
