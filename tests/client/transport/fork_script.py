"""Run by test_fork.py: uses a client, forks, uses it in both processes; then gives it to a process that was spawned."""

from __future__ import annotations

import multiprocessing
import os

import torch

from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.demo import server_process

ROWS = [list(range(1, 65))] * 4


def product(llm: RemoteTransparentLlm) -> torch.Tensor:
    """One that is multiplied here, by several threads."""
    return llm.decomposed_attn(0, 1)


def in_worker(llm: RemoteTransparentLlm) -> torch.Tensor:
    llm.run_tokens(ROWS)
    return product(llm)


def main() -> None:
    torch.set_num_threads(2)
    with server_process() as address:
        llm = connect(address, timeout_s=30)
        llm.run_tokens(ROWS)
        before, products = llm.logits(), product(llm)
        print("parent-before-ok", flush=True)
        with llm._shared.cache._lock:  # as a thread may that reads ahead
            child = os.fork()
        if child == 0:
            same = torch.equal(llm.logits(), before) and torch.equal(product(llm), products)
            llm.run(["in the child"])
            if same and llm.batch_size() == 1 and llm.logits().isfinite().all():
                print("child-ok", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        if torch.equal(llm.logits(), before):
            print("parent-ok", flush=True)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            if torch.equal(pool.apply(in_worker, (llm,)), products):
                print("spawned-ok", flush=True)
        llm.close()


if __name__ == "__main__":
    main()
