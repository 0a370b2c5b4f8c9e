"""Run by test_fork.py: uses a client, forks, uses it in both processes."""

from __future__ import annotations

import os

import torch

from transparent_llm import connect
from transparent_llm.demo import server_process


def main() -> None:
    with server_process() as address:
        llm = connect(address, timeout_s=30)
        llm.run(["before the fork"])
        before = llm.logits()
        print("parent-before-ok", flush=True)
        child = os.fork()
        if child == 0:
            same = torch.equal(llm.logits(), before)
            llm.run(["in the child"])
            if same and llm.batch_size() == 1 and llm.logits().isfinite().all():
                print("child-ok", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        if torch.equal(llm.logits(), before):
            print("parent-ok", flush=True)
        llm.close()


if __name__ == "__main__":
    main()
