"""A worker with clients of several owners, each of which runs prompts and reads what they say. Run with the number of
layers and, for each client, an address and a token.

An order is a list of prompts for each client. The answer: the seconds of each request, client by client, and of all.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from peers.processes import obey
from transparent_llm import RemoteTransparentLlm, connect

K = 10


def one_request(llm: RemoteTransparentLlm, prompt: str, n_layers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Residual vectors of the last position [layer d_model], and the largest logits there."""
    llm.run([prompt], add_bos=False)
    position = llm.tokens().shape[1] - 1
    best = ("layer_lens", 0, n_layers - 1, None, "out", "out", "own", (position,), K, 0, (), False)
    reads = [("residual_out", layer, {"pos": slice(position, None)}) for layer in range(n_layers)]
    *residuals, lens = llm.fetch([*reads, best])
    return torch.stack([residual[0, -1] for residual in residuals]), lens.top_logits[-1]


class Crowd:
    """All of its clients at the same time, each one request after the other."""

    def __init__(self, n_layers: int, targets: Sequence[tuple[str, str]]) -> None:
        self._n_layers = n_layers
        self._clients = [connect(address, token=token, cache_bytes=0) for address, token in targets]

    def obey(self, prompts: list[list[str]]) -> dict[str, Any]:
        started = time.perf_counter()
        with ThreadPoolExecutor(len(self._clients)) as pool:
            waits = list(pool.map(self._requests, self._clients, prompts))
        return {"seconds": time.perf_counter() - started, "waits": waits}

    def _requests(self, llm: RemoteTransparentLlm, prompts: list[str]) -> list[float]:
        taken = []
        for prompt in prompts:
            started = time.perf_counter()
            one_request(llm, prompt, self._n_layers)
            taken.append(time.perf_counter() - started)
        return taken


if __name__ == "__main__":
    layers, *given = sys.argv[1:]
    obey(Crowd(int(layers), list(zip(given[::2], given[1::2], strict=True))).obey)
