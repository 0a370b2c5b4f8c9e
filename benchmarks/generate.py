"""Tokens per second of generating, the run of what was generated included, beside plain Hugging Face in this process.

GPT-2 small's shape, one row, greedy, new token ids each time. Ours is a server process; both have the same tokens.

    .venv/bin/python benchmarks/generate.py [--quick]
"""

from __future__ import annotations

import torch
from peers import device, shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.serving import server_process
from peers.timing import in_turn, median_ms, ratio
from transformers import AutoModelForCausalLM, GPT2Config

from transparent_llm import connect

GOAL = Goal("higher", 0.9)
N_PROMPT = 32


def measure(config: GPT2Config, new: int, pairs: int) -> Figures:
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        connect(address) as llm,
    ):
        progress("loading the model in this process ...")
        plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", trust_remote_code=False)
        plain = plain.to(device.chosen()).eval()
        plain.generation_config.eos_token_id = None
        batches = FreshBatches(1, N_PROMPT, config.vocab_size)
        rows: list[list[int]] = []

        def ours() -> list[int]:
            return [step.tokens[0].token_id for step in llm.generate_tokens(rows, new) if step.tokens[0] is not None]

        def theirs() -> list[int]:
            tokens = torch.tensor(rows, device=device.chosen())
            answer = plain.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new, do_sample=False, pad_token_id=0
            )
            found: list[int] = answer[0, N_PROMPT:].tolist()
            return found

        def renew() -> None:
            rows[:] = batches.next()

        renew()
        generated = ours()
        assert generated == theirs()[: len(generated)]
        assert len(generated) == new, "a token that ends a text; choose other weights"
        progress(f"{pairs} rounds of {new} tokens ...")
        run = [[*rows[0], *generated[:-1]]]
        timings = in_turn({"ours": ours, "hugging_face": theirs}, pairs, before=renew)
        of_run = in_turn({"run": lambda: llm.run_tokens(run)}, pairs, before=llm.release)
    return {
        **GOAL.figures(ratio(timings, "hugging_face", "ours")),
        "tokens_per_s": 1000 * new / median_ms(timings, "ours"),
        "hugging_face_tokens_per_s": 1000 * new / median_ms(timings, "hugging_face"),
        "run_ms": median_ms(of_run, "run"),
        "ours_ms": median_ms(timings, "ours"),
        "prompt": N_PROMPT,
        "new_tokens": new,
        "layers": config.n_layer,
        "pairs": pairs,
    }


def main() -> None:
    quick = is_quick(__doc__)
    figures = (
        measure(shapes.part_of_gpt2_small(4), new=16, pairs=5)
        if quick
        else measure(shapes.gpt2_small(), new=64, pairs=11)
    )
    report("generate", figures, quick="a quarter of the model, 16 tokens, 5 pairs" if quick else None)


if __name__ == "__main__":
    main()
